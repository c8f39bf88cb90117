//! Measures cycles of growing and shrinking: lost calls, and memory that is left.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use benches::{Progress, Table, Target};
use burn::tensor::Device;
use serde::Serialize;

use crate::Args;
use crate::service::{ENGINES, Model, Pool};

#[derive(Serialize)]
pub struct Row {
    engine: &'static str,
    cycles: u32,
    calls: u32,
    /// Calls without a result.
    pub lost: u32,
    /// Workers that were started, and that have ended.
    grown: u64,
    shrunk: u64,
    ms_per_cycle: f64,
    /// Private memory of this process before the cycles and after them, when all workers have ended.
    before_mib: f64,
    after_mib: f64,
}

const WORKERS: usize = 3;
/// Cycles before the first measurement of memory: the allocator keeps what they have needed.
const WARM_UP: u32 = 20;
/// Pause before the calls that meet ending workers, in µs.
const PAUSES: [u64; 5] = [0, 500, 1000, 1500, 2000];

pub fn measure(args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    ENGINES.into_iter().map(|engine| measure_engine(engine, args, progress)).collect()
}

fn measure_engine(engine: &'static str, args: &Args, progress: &Progress) -> Result<Row> {
    progress.step("cycles");
    let pool = Pool::start(engine, 0..=WORKERS, Duration::from_millis(1))?;
    let tasks = pool.tasks(&Model::new(&Device::flex()))?;
    let (mut calls, mut lost) = (0, 0);
    let mut run = |cycles: u32| {
        for cycle in 0..cycles {
            for count in [4, 2] {
                let pending: Vec<_> = (0..count).map(|_| tasks.wait(1)).collect();
                calls += count;
                lost += pending.into_iter().map(|call| call.wait()).filter(Result::is_err).count() as u32;
                std::thread::sleep(Duration::from_micros(PAUSES[cycle as usize % PAUSES.len()]));
            }
            while pool.workers() > 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    };
    run(WARM_UP);
    let before_mib = private_mib()?;
    let begun = Instant::now();
    run(args.cycles);
    let took = begun.elapsed();
    let after_mib = private_mib()?;
    let report = pool.report().context("the pool has started")?;
    Ok(Row {
        engine,
        cycles: args.cycles,
        calls,
        lost,
        grown: report.grown,
        shrunk: report.shrunk,
        ms_per_cycle: took.as_secs_f64() * 1e3 / f64::from(args.cycles),
        before_mib,
        after_mib,
    })
}

/// Private memory of this process, by the kernel's figure.
fn private_mib() -> Result<f64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").context("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.context("no `Anonymous` in /proc/self/smaps_rollup")? / 1024.0)
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().flat_map(|row| {
        let left = format!("{}: private memory that cycles have left, in MiB", row.engine);
        [
            Target::at_most(format!("{}: lost calls", row.engine), 0.0, row.lost.into()),
            Target::at_most(left, 1.0, row.after_mib - row.before_mib),
        ]
    })
}

pub fn table(rows: &[Row]) -> Table {
    let heading = ["cycles", "number", "calls", "lost", "started", "ended", "a cycle", "MiB before", "after"];
    let mut table = Table::new(heading);
    for row in rows {
        table.row([
            row.engine.to_owned(),
            row.cycles.to_string(),
            row.calls.to_string(),
            row.lost.to_string(),
            row.grown.to_string(),
            row.shrunk.to_string(),
            format!("{:.2} ms", row.ms_per_cycle),
            format!("{:.1}", row.before_mib),
            format!("{:.1}", row.after_mib),
        ]);
    }
    table
}
