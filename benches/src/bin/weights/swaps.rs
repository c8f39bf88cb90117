//! Measures swaps under load: a pool serves calls, and moves to other weights again and again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use benches::machine::memory_of;
use benches::model::{Model, ModelConfig};
use benches::stats::{median, mib, quartiles};
use benches::{Progress, Samples, Table, Target, time};
use ray_zerocopy::arena::ArenaId;
use ray_zerocopy::engine::Backend;
use ray_zerocopy::{Arena, LocalPool, TaskWrapper, Threads, in_background};
use serde::Serialize;

use crate::{Args, TENSORS, sealing};

/// Number of threads that make calls.
const CALLERS: usize = 4;
const WORKERS: usize = 2;
/// Number of models, which follow each other.
const MODELS: usize = 3;
/// Swaps around which memory is measured.
const LOOKS: u16 = 20;
/// Time in which the last calls on old weights end.
const LAST_CALLS: Duration = Duration::from_millis(20);

#[derive(Serialize)]
pub struct Row {
    engine: &'static str,
    model_mib: f64,
    swaps: u16,
    calls: usize,
    /// Calls that failed.
    failed: usize,
    /// Answers that are not those of the weights that they name.
    mixed: usize,
    p99_before_us: f64,
    p99_us: f64,
    /// The p99 during the swaps, in units of that before.
    p99_ratio: f64,
    /// Beside making the arena.
    swap_ms_median: f64,
    swap_ms_quartiles: (f64, f64),
    memory_before_mib: f64,
    memory_peak_mib: f64,
    memory_after_mib: f64,
}

/// What the callers have seen.
#[derive(Default)]
struct Seen {
    samples: Samples,
    failed: usize,
    mixed: usize,
    calls: usize,
}

/// Weights, and the result of a forward pass on them.
struct Generation {
    id: ArenaId,
    checksum: u64,
}

/// A saved arena, and the result of its model.
struct Saved {
    path: PathBuf,
    checksum: u64,
}

impl Saved {
    /// Makes its arena, beside the calls.
    fn seal(&self) -> Result<(Arena, Generation)> {
        let arena = in_background(|| Arena::open(&self.path))?;
        let generation = Generation { id: arena.id(), checksum: self.checksum };
        Ok((arena, generation))
    }
}

pub fn measure(args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let config = ModelConfig::new(args.swap_mib, TENSORS, 1)?;
    let pool = || LocalPool::builder().workers(WORKERS).threads_per_worker(1).start();
    let threads = || Threads::builder().workers(WORKERS).threads_per_worker(1).build();
    progress.step("writing models");
    let folder = tempfile::tempdir()?;
    let write = |number| -> Result<Saved> {
        let path = folder.path().join(format!("{number}.bpk"));
        let checksum = sealing::write_elsewhere(&config, &path)?;
        Ok(Saved { path, checksum })
    };
    let saved = (0..MODELS).map(write).collect::<Result<Vec<_>>>()?;
    progress.step("swaps on processes");
    let processes = serve("processes", &pool()?, args, &config, &saved)?;
    progress.step("swaps on threads");
    let threads = serve("threads", &threads(), args, &config, &saved)?;
    Ok(vec![processes, threads])
}

/// Memory of this process and of the workers, in bytes.
fn memory(tasks: &TaskWrapper<Model>) -> Result<u64> {
    let report = tasks.report()?;
    // A worker may be a thread of this process.
    let pids: BTreeSet<u32> = report.processes.iter().map(|process| process.pid).collect();
    memory_of(pids)
}

fn serve(
    engine: &'static str,
    backend: &impl Backend,
    args: &Args,
    config: &ModelConfig,
    saved: &[Saved],
) -> Result<Row> {
    let (first, known) = saved[0].seal()?;
    let generations = Mutex::new(vec![known]);
    let tasks = TaskWrapper::<Model>::from_arena_on(backend, first)?;
    // Makes all pages resident, and what the first calls and the first swap leave in memory for good: activations,
    // code, and the stacks of threads that seal files.
    load(&tasks, &generations, |tasks| {
        std::thread::sleep(Duration::from_millis(300));
        let (arena, known) = saved[1].seal()?;
        locked(&generations).push(known);
        tasks.swap(arena)?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    })?;
    let before = load(&tasks, &generations, |_| {
        std::thread::sleep(Duration::from_millis(1500));
        Ok(())
    })?;
    let memory_before = memory(&tasks)?;

    let mut next = saved.iter().cycle().skip(2);
    let mut seal = || -> Result<Arena> {
        let (arena, known) = next.next().context("there are no models")?.seal()?;
        locked(&generations).push(known);
        Ok(arena)
    };
    let mut swaps = Vec::new();
    let during = load(&tasks, &generations, |tasks| {
        for _ in 0..args.swaps {
            let arena = seal()?;
            let begun = Instant::now();
            tasks.swap(arena)?;
            swaps.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        Ok(())
    })?;
    // Apart, since the kernel holds up a process whose mappings are read.
    let mut peak = 0;
    let looked_at = load(&tasks, &generations, |tasks| {
        for _ in 0..args.swaps.min(LOOKS) {
            let arena = seal()?;
            // Both arenas are in memory: the new one is mapped here, the old one in all workers.
            peak = memory(tasks)?.max(peak);
            tasks.swap(arena)?;
            peak = memory(tasks)?.max(peak);
        }
        Ok(())
    })?;
    // The old weights are free when their last calls have ended.
    std::thread::sleep(LAST_CALLS);
    let memory_after = memory(&tasks)?;
    let (p99_before_us, p99_us) = (before.samples.quantile(0.99), during.samples.quantile(0.99));
    Ok(Row {
        engine,
        model_mib: mib(config.bytes()),
        swaps: args.swaps,
        calls: during.calls,
        failed: before.failed + during.failed + looked_at.failed,
        mixed: before.mixed + during.mixed + looked_at.mixed,
        p99_before_us,
        p99_us,
        p99_ratio: p99_us / p99_before_us,
        swap_ms_median: median(&swaps),
        swap_ms_quartiles: quartiles(&swaps),
        memory_before_mib: mib(memory_before),
        memory_peak_mib: mib(peak),
        memory_after_mib: mib(memory_after),
    })
}

/// Makes calls on several threads while `work` runs on this one.
fn load(
    tasks: &TaskWrapper<Model>,
    generations: &Mutex<Vec<Generation>>,
    work: impl FnOnce(&TaskWrapper<Model>) -> Result<()>,
) -> Result<Seen> {
    let is_over = AtomicBool::new(false);
    let (worked, seen) = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(|| call(tasks, generations, &is_over))).collect();
        let worked = work(tasks);
        is_over.store(true, Ordering::Release);
        let seen: Vec<Seen> = callers.into_iter().filter_map(|caller| caller.join().ok()).collect();
        (worked, seen)
    });
    worked?;
    ensure!(seen.len() == CALLERS, "a caller panicked");
    let add = |mut all: Seen, one: Seen| {
        all.samples.extend(one.samples);
        all.failed += one.failed;
        all.mixed += one.mixed;
        all.calls += one.calls;
        all
    };
    Ok(seen.into_iter().fold(Seen::default(), add))
}

fn call(tasks: &TaskWrapper<Model>, generations: &Mutex<Vec<Generation>>, is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !is_over.load(Ordering::Acquire) {
        let begun = Instant::now();
        let pending = tasks.forward();
        let id = pending.arena_id();
        match pending.wait() {
            Ok(forward) => {
                let generations = locked(generations);
                let named = generations.iter().find(|known| Some(known.id) == id);
                seen.mixed += usize::from(named.is_none_or(|known| known.checksum != forward.checksum));
            }
            Err(_) => seen.failed += 1,
        }
        seen.samples.push(begun.elapsed());
        seen.calls += 1;
    }
    seen
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().flat_map(|row| {
        let target =
            |what: &str, most, is| Target::at_most(format!("{}, {} swaps: {what}", row.engine, row.swaps), most, is);
        [
            target("failed calls", 0.0, row.failed as f64),
            target("answers of other weights", 0.0, row.mixed as f64),
            target("p99 in units of that before", 2.0, row.p99_ratio),
            target("a swap, ms", 10.0, row.swap_ms_median),
            target("largest memory, MiB", 2.0 * row.model_mib + 32.0, row.memory_peak_mib),
            target("change of memory, MiB", 4.0, (row.memory_after_mib - row.memory_before_mib).abs()),
        ]
    })
}

pub fn table(rows: &[Row]) -> Table {
    let heading =
        ["swaps", "calls", "failed", "mixed", "p99 before", "p99", "swap", "", "memory before", "largest", "after"];
    let mut table = Table::new(heading);
    for row in rows {
        let (low, high) = row.swap_ms_quartiles;
        table.row([
            format!("{} of {:.0} MiB, {}", row.swaps, row.model_mib, row.engine),
            row.calls.to_string(),
            row.failed.to_string(),
            row.mixed.to_string(),
            time(row.p99_before_us),
            time(row.p99_us),
            time(row.swap_ms_median * 1e3),
            format!("{low:.1}..{high:.1} ms"),
            format!("{:.1}", row.memory_before_mib),
            format!("{:.1}", row.memory_peak_mib),
            format!("{:.1}", row.memory_after_mib),
        ]);
    }
    table
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A caller that has panicked is an error of the measurement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
