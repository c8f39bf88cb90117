//! What a traced graph costs beside the pipeline that it was traced from: to run, at a size that is new, and in memory.

mod memory;
mod models;
mod replay;

use anyhow::Result;
use benches::{Common, Progress, Run, Table, Target};
use clap::Parser;
use serde::Serialize;

/// A traced graph beside the pipeline that it was traced from.
///
/// Both run in this process, in turns within each round, on the same inputs, and have to give the same bits. A size that the graph
/// has not run at has to be put into each operation first: that is timed apart, with the run at that size taken off. Memory is that of
/// worker processes which load a graph without knowing its Rust type, by the kernel's figures.
#[derive(Parser, Serialize)]
#[command(name = "jit", after_help = "cargo run --release -p benches --bin jit -- --json")]
struct Args {
    /// How many rounds.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// The size of the graph that workers share, in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    mib: u32,
    /// How many workers, one row for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    workers: Vec<usize>,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

/// All figures, told apart by the field `measure`.
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
    let notes = "Medians; `x` in units of the pipeline's own forward pass: the median of the rounds, and the middle half of them.\n\
                 MemoryPolicy in MiB: PSS of all processes; Anonymous of the largest worker.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
