//! Measures a call of a single caller, which finds idle workers.

use anyhow::Result;
use benches::stats::{Ratio, Summary};
use benches::{Progress, Samples, Table, Target, time};
use serde::Serialize;

use crate::Args;
use crate::contestants::{BATCHED, Workers, contestants, unbatched};
use crate::service::embed_one;

#[derive(Serialize)]
pub struct Row {
    workers: &'static str,
    calls: &'static str,
    #[serde(flatten)]
    summary: Summary,
    /// In units of unbatched calls of the same workers.
    #[serde(flatten)]
    ratio: Ratio,
}

/// Number of calls of a contestant in a round.
const CALLS: usize = 50;

pub fn measure(workers: &[Workers], texts: &[String], args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let contestants = contestants(workers);
    let calls = if args.common.quick { 3 } else { CALLS };
    let mut all = vec![Samples::default(); contestants.len()];
    let mut medians = vec![Vec::new(); contestants.len()];
    for round in 0..usize::from(args.rounds) {
        progress.step("lone calls");
        for turn in 0..contestants.len() {
            let index = (round + turn) % contestants.len();
            // All contestants of a round get the same texts.
            let mut next = round * calls;
            let samples = Samples::take(calls, || {
                let text = &texts[next % texts.len()];
                next += 1;
                embed_one(&contestants[index].tasks, text).map(drop)
            })?;
            medians[index].push(samples.median());
            all[index].extend(samples);
        }
    }
    let row = |index: usize| Row {
        workers: contestants[index].workers,
        calls: contestants[index].calls,
        summary: all[index].summary(),
        ratio: Ratio::of(&medians[index], &medians[unbatched(index)]),
    };
    Ok((0..contestants.len()).map(row).collect())
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().filter(|row| row.calls == BATCHED).map(|row| {
        let what = format!("{}: p50 of a lone batched call in units of an unbatched one", row.workers);
        Target::at_most(what, 1.1, row.ratio.ratio)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["lone call", "calls", "p50", "p99", "p50 in units of unbatched"]);
    for Row { workers, calls, summary, ratio } in rows {
        let (p50, p99) = (time(summary.p50_us), time(summary.p99_us));
        table.row([(*workers).to_owned(), (*calls).to_owned(), p50, p99, ratio.to_string()]);
    }
    table
}
