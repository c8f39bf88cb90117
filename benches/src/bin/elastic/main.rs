//! Measures elastic pools: the first answer of an empty pool, cycles of growing and shrinking, and a burst
//! of calls.

mod burst;
mod cycles;
mod first_answer;
mod service;

use anyhow::{Result, ensure};
use benches::{Common, Progress, Run};
use clap::Parser;
use serde::Serialize;

/// Pools that grow when calls wait, and shrink when workers are idle.
///
/// First, an empty pool gets a call, and starts a worker for it. Then a pool grows and shrinks again and
/// again, while calls arrive. Then a pool with a least number of one worker gets 8 times as many calls as
/// before, at regular intervals. Their method waits as long as a call to a device takes, so that the
/// pool, and not the number of cores, limits the throughput.
#[derive(Parser, Serialize)]
#[command(name = "elastic", after_help = "cargo run --release -p benches --bin elastic -- --cycles 1000 --json")]
struct Args {
    /// Number of empty pools that get a call, and of bursts
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Number of cycles of growing and shrinking
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    cycles: u32,
    /// Largest number of workers in a burst
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Time in milliseconds that a call of a burst takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    millis: u16,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

/// A row of any measurement; the field `measure` names it.
#[derive(Serialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
enum Row {
    FirstAnswer(first_answer::Row),
    Cycles(cycles::Row),
    Burst(burst::Row),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.common.quick {
        (args.rounds, args.cycles, args.workers) = (1, 5, args.workers.min(2));
    }
    let run = Run::begin("elastic", args.common);
    let progress = Progress::new(2 * (1 + 2 * usize::from(args.rounds)));
    let first = first_answer::measure(&args, &progress)?;
    let cycles = cycles::measure(&args, &progress)?;
    let burst = burst::measure(&args, &progress)?;
    drop(progress);

    let tables = [first_answer::table(&first), cycles::table(&cycles), burst::table(&burst)];
    let targets = first_answer::targets(&first).chain(cycles::targets(&cycles)).chain(burst::targets(&burst));
    let targets: Vec<_> = targets.collect();
    let lost: u32 = cycles.iter().map(|row| row.lost).sum();
    let rows = first.into_iter().map(Row::FirstAnswer).chain(cycles.into_iter().map(Row::Cycles));
    let rows: Vec<_> = rows.chain(burst.into_iter().map(Row::Burst)).collect();
    let notes = "Medians and quartiles of all rounds. The first answer without the forward pass: less the median of a \
                 second call.\nSteady after: the time from the begin of the burst to the first window of 20 ms from which \
                 on no window's p99 is\nabove 1.5 times that of the burst's second half.";
    run.finish(&args, &rows, &targets, &tables, notes)?;
    ensure!(lost == 0, "{lost} calls were lost");
    Ok(())
}
