//! Measures latencies when calls arrive at random, at a rate that unbatched calls can just sustain.

use anyhow::Result;
use benches::random::Random;
use benches::stats::{Ratio, Summary};
use benches::{Progress, Samples, Table, Target, time};
use serde::Serialize;

use crate::contestants::{self, BATCHED, Workers, contestants, unbatched};
use crate::open_loop::{arrivals, run};
use crate::{Args, throughput};

#[derive(Serialize)]
pub struct Row {
    workers: &'static str,
    calls: &'static str,
    arrivals_per_s: f64,
    #[serde(flatten)]
    summary: Summary,
    /// In units of unbatched calls of the same workers.
    p99_over_unbatched: Ratio,
    rows_per_batch: Option<f64>,
}

/// Rate of arrivals, as a part of the throughput of unbatched calls.
pub const LOAD: f64 = 0.8;

/// The first tenth of a round, in which the queue fills, is not part of the result.
const SETTLING: usize = 10;

pub fn measure(
    workers: &[Workers],
    texts: &[String],
    throughput: &[throughput::Row],
    args: &Args,
    progress: &Progress,
) -> Result<Vec<Row>> {
    let contestants = contestants(workers);
    let rate = |index: usize| LOAD * throughput::capacity(throughput, contestants[index].workers);
    let mut all = vec![Samples::default(); contestants.len()];
    let mut p99s = vec![Vec::new(); contestants.len()];
    for round in 0..usize::from(args.rounds) {
        progress.step("80 % load");
        for turn in 0..contestants.len() {
            let index = (round + turn) % contestants.len();
            // Contestants with the same workers get the same arrivals in a round.
            let mut random = Random::new(args.seed.wrapping_add(round as u64));
            let arrivals = arrivals(rate(index), args.seconds, &mut random);
            let latencies = run(&contestants[index].tasks, texts, &arrivals)?;
            let settled: Samples = latencies.into_iter().skip(arrivals.len() / SETTLING).collect();
            p99s[index].push(settled.quantile(0.99));
            all[index].extend(settled);
        }
    }
    let mut rows = Vec::new();
    for (index, contestant) in contestants.iter().enumerate() {
        rows.push(Row {
            workers: contestant.workers,
            calls: contestant.calls,
            arrivals_per_s: rate(index),
            summary: all[index].summary(),
            p99_over_unbatched: Ratio::of(&p99s[index], &p99s[unbatched(index)]),
            rows_per_batch: contestant.rows_per_batch()?,
        });
    }
    Ok(rows)
}

/// Returns the 99th percentile of a contestant's latencies, in microseconds.
pub fn p99_us(rows: &[Row], workers: &str, calls: &str) -> f64 {
    let row = rows.iter().find(|row| row.workers == workers && row.calls == calls);
    row.map_or(0.0, |row| row.summary.p99_us)
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().filter(|row| row.calls == BATCHED).map(|row| {
        let what = format!("{}: p99 of batched calls at 80 % load, in units of unbatched ones", row.workers);
        Target::at_most(what, 1.0, row.p99_over_unbatched.ratio)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let heading = ["80 % load", "calls", "arrivals/s", "p50", "p99", "p99 in units of unbatched", "rows per batch"];
    let mut table = Table::new(heading);
    for row in rows {
        table.row([
            row.workers.to_owned(),
            row.calls.to_owned(),
            format!("{:.0}", row.arrivals_per_s),
            time(row.summary.p50_us),
            time(row.summary.p99_us),
            row.p99_over_unbatched.to_string(),
            contestants::rows(row.rows_per_batch),
        ]);
    }
    table
}
