//! Measures the throughput of a pool in calls per second.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use benches::{Progress, Table, stats};
use burn::tensor::Tensor;
use ray_zerocopy::{LocalPool, TaskWrapper, Threads, gather};
use serde::Serialize;

use crate::{Args, Model, numbers};

#[derive(Serialize)]
pub struct Row {
    method: &'static str,
    /// Where the workers are: `processes` or `threads`.
    engine: &'static str,
    workers: usize,
    /// Number of calls started before the first is awaited.
    calls: usize,
    calls_per_second_median: f64,
    calls_per_second_range: (f64, f64),
}

/// Starts a number of calls and awaits all of them.
type Burst = fn(&TaskWrapper<Model>, &Tensor<1>, usize) -> Result<()>;

/// A method that works for a millisecond shows the gain from more workers. The others show the cost
/// of each call for the owner, its threads and the kernel.
const BURSTS: [(&str, usize, Burst); 3] = [
    ("a small call", 10_000, |tasks, _, calls| {
        let numbers = gather((0..calls).map(|number| tasks.next(number as u64))).wait()?;
        ensure!(numbers.into_iter().eq(1..=calls as u64), "results are not those of the calls");
        Ok(())
    }),
    ("1 MiB there and back", 200, |tasks, x, calls| {
        let tensors = gather((0..calls).map(|_| tasks.exchange(x.clone()))).wait()?;
        ensure!(tensors.iter().all(|tensor| tensor.dims() == x.dims()), "returned tensors have another shape");
        Ok(())
    }),
    ("1 ms of work", 200, |tasks, _, calls| {
        gather((0..calls).map(|_| tasks.work(WORK))).wait()?;
        Ok(())
    }),
];
const WORK: Duration = Duration::from_millis(1);
const WORKERS: [usize; 2] = [1, 2];

pub fn steps(rounds: u16) -> usize {
    usize::from(rounds) * BURSTS.len()
}

pub fn measure(model: &Model, args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let x = numbers(1 << 18, 0.0);
    let mut pools = Vec::new();
    for workers in WORKERS {
        let processes = LocalPool::builder().workers(workers).threads_per_worker(1).start()?;
        let threads = Threads::builder().workers(workers).threads_per_worker(1).build();
        for (engine, tasks) in
            [("processes", TaskWrapper::on(&processes, model)?), ("threads", TaskWrapper::on(&threads, model)?)]
        {
            // Enough calls for every worker to get one and load the pipeline.
            gather((0..4 * workers).map(|_| tasks.work(WORK))).wait()?;
            pools.push((engine, workers, tasks));
        }
    }
    let mut rows = Vec::new();
    for (method, calls, burst) in BURSTS {
        let calls = if args.common.quick { 20 } else { calls };
        let mut rates = vec![Vec::new(); pools.len()];
        for round in 0..usize::from(args.rounds) {
            progress.step("calls per second");
            for turn in 0..pools.len() {
                let index = (round + turn) % pools.len();
                let begun = Instant::now();
                burst(&pools[index].2, &x, calls)?;
                rates[index].push(calls as f64 / begun.elapsed().as_secs_f64());
            }
        }
        rows.extend(pools.iter().zip(&rates).map(|((engine, workers, _), rates)| Row {
            method,
            engine,
            workers: *workers,
            calls,
            calls_per_second_median: stats::median(rates),
            calls_per_second_range: stats::range(rates),
        }));
    }
    Ok(rows)
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["throughput of", "engine", "workers", "calls at once", "calls/s"]);
    for row in rows {
        let (low, high) = row.calls_per_second_range;
        let rate = format!("{:.0} ({low:.0}..{high:.0})", row.calls_per_second_median);
        table.row([row.method.to_owned(), row.engine.to_owned(), row.workers.to_string(), row.calls.to_string(), rate]);
    }
    table
}
