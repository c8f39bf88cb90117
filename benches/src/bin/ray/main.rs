//! Measures pipelines on Ray: calls compared with Ray's own, and memory compared with the size of
//! the model.

mod bulk;
mod calls;
mod memory;

use anyhow::Result;
use benches::{Common, Progress, Run, Table, Target};
use clap::Parser;
use ray_zerocopy::ray::Cluster;
use serde::Serialize;

/// Calls of pipelines on Ray compared with Ray's own, and the memory of actors that share one
/// model.
///
/// The benchmark starts a cluster of one node, whose workers run this program. A call is compared
/// with an empty Python task, and with an empty Python method of an actor; all take turns within
/// each round. Memory is by the kernel's figures: the PSS of the actors' processes without Ray's
/// object store, and the one copy of the model in the store.
#[derive(Parser, Serialize)]
#[command(name = "ray", after_help = "cargo run --release -p benches --features ray --bin ray -- --json")]
struct Args {
    /// Number of rounds of calls
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Calls of each kind in a round
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// Calls that are under way together
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    under_way: u16,
    /// Size of the model that actors share, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    mib: u32,
    /// Numbers of actors; each gets its own row
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
    Call(calls::Row),
    Bulk(bulk::Row),
    Memory(memory::Row),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.common.quick {
        (args.rounds, args.calls, args.mib) = (2, args.calls.min(5), 16);
        args.workers = vec![1, 2];
    }
    let run = Run::begin("ray", args.common);
    let progress = Progress::new(2 * usize::from(args.rounds) + args.workers.len() + 1);
    progress.step("starting a cluster");
    let store = (2 * u64::from(args.mib) + 256) << 20;
    let cluster = Cluster::local().cpus(16).object_store(store).quiet().start()?;
    let calls = calls::measure(&cluster, &args, &progress)?;
    let bulk = bulk::measure(&cluster, &args, &progress)?;
    let memory = memory::measure(&cluster, &args, &progress)?;
    drop(progress);
    cluster.shut_down()?;

    let tables: [Table; 3] = [calls::table(&calls), bulk::table(&bulk), memory::table(&memory)];
    let targets = calls::targets(&calls).chain(bulk::targets(&bulk)).chain(memory::targets(&memory));
    let targets: Vec<Target> = targets.collect();
    let rows = calls.into_iter().map(Row::Call).chain(bulk.into_iter().map(Row::Bulk));
    let rows: Vec<_> = rows.chain(memory.into_iter().map(Row::Memory)).collect();
    let notes = "Medians; `x` in units of Ray's own task, or of its own call of an actor: median and quartiles of the rounds.\n\
                 Calls under way together: time of all of them, from the first submission to the last result, by their number.\n\
                 Memory in MiB: PSS of all actors without the store, and the model in the store; Anonymous of the largest actor.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
