//! Measures the memory of workers that run a compiled graph.

use anyhow::{Context, Result};
use benches::machine::memory_of;
use benches::stats::mib;
use benches::traced_models::StackConfig;
use benches::{Progress, Table, Target};
use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::jit::{self, Compile, JitActorWrapper, Values};
use serde::Serialize;

const WORKERS: usize = 4;
/// Rows of a call.
const BATCH: usize = 8;

/// A way to compile: its name, and its options.
type Way = (&'static str, fn() -> Compile);

/// The ways to compile, the one with weights of 32 bits first.
const WAYS: [Way; 4] =
    [("f32", Compile::f32), ("bf16", Compile::bf16), ("int8", Compile::int8), ("int4", Compile::int4)];

#[derive(Serialize)]
pub struct Row {
    weights: &'static str,
    arena_mib: f64,
    /// The arena in units of that with weights of 32 bits.
    arena_ratio: f64,
    /// Memory of all workers: the arena once, and the PSS of everything else.
    workers_mib: f64,
    /// The most private memory of a worker.
    private_mib: f64,
    /// What an executable keeps for the results of its operations.
    activations_mib: f64,
    /// The longest time in which a worker loaded the graph.
    load_ms: f64,
}

/// Number of measurements.
pub const COUNT: usize = WAYS.len();

pub fn measure(quick: bool, progress: &Progress) -> Result<Vec<Row>> {
    let device = Device::flex();
    let (width, layers) = if quick { (512, 2) } else { (4096, 16) };
    let inputs = Values::new().with("x", Tensor::<2>::random([BATCH, width], Distribution::Default, &device));
    let graph = {
        let stack = StackConfig { width, layers }.init(&device);
        jit::trace(&stack)
            .input("x", Tensor::<2>::random([2, width], Distribution::Default, &device))
            .symbol("batch", [("x", 0)])
            .forward(|stack, inputs| Ok(stack.forward(inputs.float::<2>("x")?)))?
    };
    let mut rows: Vec<Row> = Vec::new();
    for (weights, options) in WAYS {
        progress.step(format!("memory of {WORKERS} workers, {weights}"));
        let compiled = graph.compile(options())?;
        let mut executable = compiled.load("cpu")?;
        for _ in 0..3 {
            executable.run(inputs.clone())?;
        }
        let activations_mib = mib(executable.kept_bytes());
        drop(executable);
        let actors = JitActorWrapper::new(&compiled).strict().threads_per_worker(1).spawn(WORKERS)?;
        for _ in 0..3 {
            let calls: Vec<_> = actors.iter().map(|actor| actor.run(inputs.clone())).collect();
            calls.into_iter().try_for_each(|call| call.wait().map(drop))?;
        }
        let report = actors.report()?;
        let workers = report.processes.get(1..).context("a report has the workers")?;
        let arena_mib = mib(compiled.arena().size_bytes());
        rows.push(Row {
            weights,
            arena_mib,
            arena_ratio: arena_mib / rows.first().map_or(arena_mib, |first| first.arena_mib),
            workers_mib: mib(memory_of(workers.iter().map(|worker| worker.pid))?),
            private_mib: workers.iter().map(|worker| mib(worker.private)).fold(0.0, f64::max),
            activations_mib,
            load_ms: workers.iter().filter_map(|worker| worker.attach_micros).max().unwrap_or_default() as f64 / 1e3,
        });
    }
    Ok(rows)
}

pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "weights of 16 layers, 4 workers",
        "arena",
        "in units of f32",
        "memory of the workers",
        "private, the most",
        "activations",
        "load",
    ]);
    for row in rows {
        table.row([
            row.weights.to_owned(),
            format!("{:.1} MiB", row.arena_mib),
            format!("{:.3}", row.arena_ratio),
            format!("{:.1} MiB", row.workers_mib),
            format!("{:.1} MiB", row.private_mib),
            format!("{:.2} MiB", row.activations_mib),
            format!("{:.1} ms", row.load_ms),
        ]);
    }
    table
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().flat_map(|row| {
        let target = |what: &str, most, is| Target::at_most(format!("4 workers, {}: {what}", row.weights), most, is);
        let own = [
            target("memory beside the arena, MiB", 24.0, row.workers_mib - row.arena_mib),
            target("private memory of a worker beside activations, MiB", 4.0, row.private_mib - row.activations_mib),
            target("load, ms", 5.0, row.load_ms),
        ];
        let ratio = (row.weights == "int8").then(|| target("arena in units of f32", 0.27, row.arena_ratio));
        own.into_iter().chain(ratio)
    })
}
