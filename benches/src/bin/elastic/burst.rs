//! Measures a burst: calls arrive at regular intervals, and 8 times as often from one moment on.

use std::time::{Duration, Instant};

use anyhow::Result;
use benches::stats::{median, quartiles};
use benches::{Progress, Samples, Table, Target};
use burn::tensor::Device;
use serde::Serialize;

use crate::Args;
use crate::service::{ENGINES, Model, Pool, micros};

#[derive(Serialize)]
pub struct Row {
    engine: &'static str,
    /// 99th percentile before the burst, and in its second half.
    before_p99_ms_median: f64,
    steady_p99_ms_median: f64,
    /// Largest 99th percentile of a window.
    worst_p99_ms_median: f64,
    /// From the begin of the burst until the 99th percentile stays near that of the second half.
    steady_after_ms_median: f64,
    steady_after_ms_quartiles: (f64, f64),
    workers: usize,
}

/// How much more calls arrive in a burst.
const FACTOR: u32 = 8;
/// Part of one worker's time that the calls before the burst take.
const LOAD: f64 = 0.5;
const WINDOW: Duration = Duration::from_millis(20);
/// How far a window's p99 may be above the steady one.
const TOLERANCE: f64 = 1.5;

/// The figures of one burst, in ms.
struct Burst {
    before: f64,
    steady: f64,
    worst: f64,
    steady_after: f64,
    workers: usize,
}

pub fn measure(args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let model = Model::new(&Device::flex());
    let mut bursts = [Vec::new(), Vec::new()];
    for _ in 0..args.rounds {
        for (engine, bursts) in ENGINES.into_iter().zip(&mut bursts) {
            progress.step("bursts");
            bursts.push(burst(engine, &model, args)?);
        }
    }
    let rows = ENGINES.into_iter().zip(&bursts).map(|(engine, bursts)| {
        let all = |figure: fn(&Burst) -> f64| bursts.iter().map(figure).collect::<Vec<_>>();
        let steady_after = all(|burst| burst.steady_after);
        Row {
            engine,
            before_p99_ms_median: median(&all(|burst| burst.before)),
            steady_p99_ms_median: median(&all(|burst| burst.steady)),
            worst_p99_ms_median: median(&all(|burst| burst.worst)),
            steady_after_ms_median: median(&steady_after),
            steady_after_ms_quartiles: quartiles(&steady_after),
            workers: bursts.iter().map(|burst| burst.workers).max().unwrap_or_default(),
        }
    });
    Ok(rows.collect())
}

fn burst(engine: &str, model: &Model, args: &Args) -> Result<Burst> {
    let length = Duration::from_millis(if args.common.quick { 100 } else { 1000 });
    let pool = Pool::start(engine, 1..=args.workers.into(), Duration::from_secs(3600))?;
    let tasks = pool.tasks(model)?;
    let millis = u64::from(args.millis);
    tasks.wait(0).wait()?;
    let interval = Duration::from_secs_f64(f64::from(args.millis) / 1e3 / LOAD);
    let mut phases = Vec::new();
    for interval in [interval, interval / FACTOR] {
        let (begun, epoch) = (Instant::now(), micros());
        let count = (length.as_secs_f64() / interval.as_secs_f64()).ceil() as u32;
        let mut calls = Vec::new();
        for call in 0..count {
            let due = interval * call;
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            calls.push((due, tasks.wait(millis)));
        }
        phases.push((epoch, calls));
    }
    // The worker says when a call has ended, so nothing waits for results meanwhile.
    let mut latencies = Vec::new();
    for (epoch, calls) in phases {
        let latency = |(due, call): (Duration, ray_zerocopy::Pending<u64>)| {
            let ended = Duration::from_micros(call.wait()?.saturating_sub(epoch));
            Ok((due, ended.saturating_sub(due)))
        };
        latencies.push(calls.into_iter().map(latency).collect::<Result<Vec<_>>>()?);
    }
    let p99 = |calls: &[(Duration, Duration)], is_in: &dyn Fn(Duration) -> bool| {
        let samples: Samples = calls.iter().filter(|(due, _)| is_in(*due)).map(|(_, latency)| *latency).collect();
        samples.quantile(0.99) / 1e3
    };
    let (before, during) = (&latencies[0], &latencies[1]);
    let steady = p99(during, &|due| due >= length / 2);
    let windows = length.as_millis().div_ceil(WINDOW.as_millis()) as u32;
    let windows: Vec<_> = (0..windows)
        .map(|window| p99(during, &|due| (WINDOW * window..WINDOW * (window + 1)).contains(&due)))
        .collect();
    let last_bad = windows.iter().rposition(|window| *window > TOLERANCE * steady);
    Ok(Burst {
        before: p99(before, &|_| true),
        steady,
        worst: windows.iter().copied().fold(0.0, f64::max),
        steady_after: last_bad.map_or(0.0, |window| (window + 1) as f64 * WINDOW.as_secs_f64() * 1e3),
        workers: pool.workers(),
    })
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().map(|row| {
        let what = format!("{}: ms until the p99 of a burst of {FACTOR} times the load is steady", row.engine);
        Target::at_most(what, 100.0, row.steady_after_ms_median)
    })
}

pub fn table(rows: &[Row]) -> Table {
    let heading = ["burst", "p99 before", "p99 steady", "worst p99", "steady after", "", "workers"];
    let mut table = Table::new(heading);
    let ms = |figure: f64| format!("{figure:.2} ms");
    for row in rows {
        let (low, high) = row.steady_after_ms_quartiles;
        table.row([
            row.engine.to_owned(),
            ms(row.before_p99_ms_median),
            ms(row.steady_p99_ms_median),
            ms(row.worst_p99_ms_median),
            format!("{:.0} ms", row.steady_after_ms_median),
            format!("{low:.0}..{high:.0}"),
            row.workers.to_string(),
        ]);
    }
    table
}
