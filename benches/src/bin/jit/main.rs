//! Measures a traced graph, compared with the pipeline that it was traced from: time to run, time
//! for a new size, and memory.

mod memory;
mod replay;

use anyhow::Result;
use benches::{Common, Progress, Run, Table, Target};
use clap::Parser;
use serde::Serialize;

/// A traced graph compared with the pipeline that it was traced from.
///
/// Both run in this process, in turns within each round, on the same inputs, and their outputs must
/// be equal bit for bit. A size that is new to the graph must first be substituted into each
/// operation: this is timed separately, as the difference of the first and second run at that size.
/// Memory is that of worker processes that load a graph without its Rust type, by the kernel's
/// figures.
#[derive(Parser, Serialize)]
#[command(name = "jit", after_help = "cargo run --release -p benches --bin jit -- --json")]
struct Args {
    /// Number of rounds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Size of the graph that workers share, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    mib: u32,
    /// Numbers of workers; each gets its own row
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    workers: Vec<usize>,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

/// A row of any measurement; the field `measure` names it.
#[derive(Serialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
enum Row {
    Replay(replay::Row),
    Memory(memory::Row),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.common.quick {
        (args.rounds, args.mib) = (2, 64);
        args.workers = vec![1, 2];
    }
    let run = Run::begin("jit", args.common);
    let progress = Progress::new(replay::steps(&args) + args.workers.len() + 1);
    let replay = replay::measure(&args, &progress)?;
    let memory = memory::measure(&args, &progress)?;
    drop(progress);

    let tables: [Table; 2] = [replay::table(&replay), memory::table(&memory)];
    let targets: Vec<Target> = replay::targets(&replay).chain(memory::targets(&memory)).collect();
    let rows: Vec<_> = replay.into_iter().map(Row::Replay).chain(memory.into_iter().map(Row::Memory)).collect();
    let notes = "Medians; `x` in units of the pipeline's own forward pass: median and quartiles of the rounds.\n\
                 Memory in MiB: PSS of all processes; Anonymous of the largest worker.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
