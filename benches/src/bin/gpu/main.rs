//! Measures workers that embed sentences on one GPU, compared with PyTorch in one process.
//!
//! | file | content |
//! | --- | --- |
//! | `encoder` | the pipeline: an encoder of MiniLM's shape with random weights |
//! | `contestants` | the pools of workers, and PyTorch's process |

mod contestants;
mod encoder;

use std::path::PathBuf;

use anyhow::Result;
use benches::stats::{Ratio, median};
use benches::{Common, Progress, Run, Table};
use clap::Parser;
use serde::Serialize;

use contestants::{Contestant, Load};

/// Rounds of each contestant that are not measured.
const WARM_UPS: usize = 2;

/// Sentences per second of 1 to 4 worker processes that share one copy of an encoder on a GPU, and of PyTorch in one
/// process.
///
/// The encoder has the shape of all-MiniLM-L6-v2, and random weights. Workers are given batches of token ids, and
/// return vectors; PyTorch gets its ids from the processor's memory, and copies vectors there, too. burn's CUDA backend
/// multiplies in TF32. Traced graphs are recorded, and each run is started in one step. The contestants take turns within each round.
#[derive(Parser, Serialize)]
#[command(
    name = "gpu",
    after_help = "cargo xtask cuda run --release -p benches --features cuda --bin gpu -- --peer python3"
)]
struct Args {
    /// Devices of the workers, such as `cuda:0` and `libtorch:cuda:0`
    #[arg(long, default_values = ["cuda:0"], num_args = 1..)]
    devices: Vec<String>,
    /// Numbers of workers
    #[arg(long, default_values_t = [1, 2, 4], num_args = 1.., value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Vec<u16>,
    /// Sentences of a batch
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    sentences: u16,
    /// Tokens of a sentence
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    tokens: u16,
    /// Batches in a round
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batches: u16,
    /// Number of rounds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// A Python with PyTorch, to compare with
    #[arg(long)]
    peer: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

#[derive(Serialize)]
struct Row {
    contestant: String,
    sentences_per_s_median: f64,
    /// Seconds in units of the first contestant's.
    #[serde(flatten)]
    ratio: Ratio,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.common.quick {
        (args.sentences, args.tokens, args.batches, args.rounds) = (2, 4, 2, 1);
        args.workers.truncate(1);
    }
    let run = Run::begin("gpu", args.common);
    let load = Load { sentences: args.sentences.into(), tokens: args.tokens.into(), batches: args.batches.into() };
    let count = args.devices.len() * args.workers.len();
    let progress = Progress::new(count + usize::from(args.rounds));
    let mut contestants = Vec::new();
    if let Some(python) = &args.peer {
        contestants.extend(contestants::peers(python, &args.devices[0])?);
    }
    let (arena, graph) = encoder::share(contestants::ids(load))?;
    for device in &args.devices {
        for &workers in &args.workers {
            progress.step(format!("{workers} workers on {device}"));
            contestants.push(contestants::pool(&arena, device, workers.into())?);
            // LibTorch runs TorchScript modules, and no graphs.
            if !device.starts_with("libtorch") {
                contestants.push(contestants::graph_pool(&graph, device, workers.into())?);
            }
        }
    }
    // The first run compiles kernels, and finds the fastest ones. The next ones record those of graphs.
    for contestant in &mut contestants {
        (0..WARM_UPS).try_for_each(|_| contestant.run(load).map(drop))?;
    }
    let mut seconds = vec![Vec::new(); contestants.len()];
    for round in 0..args.rounds {
        progress.step(format!("round {}", round + 1));
        for (contestant, seconds) in contestants.iter_mut().zip(&mut seconds) {
            seconds.push(contestant.run(load)?);
        }
    }
    drop(progress);
    let row = |(contestant, own): (&Contestant, &Vec<f64>)| Row {
        contestant: contestant.to_string(),
        sentences_per_s_median: (load.sentences * load.batches) as f64 / median(own),
        ratio: Ratio::of(own, &seconds[0]),
    };
    let rows: Vec<Row> = contestants.iter().zip(&seconds).map(row).collect();
    let gpus: Vec<_> = contestants.iter().filter_map(|contestant| contestant.gpu()).collect();
    let mut table = Table::new(["", "sentences/s", "time in units of the first"]);
    for row in &rows {
        table.row([row.contestant.clone(), format!("{:.0}", row.sentences_per_s_median), row.ratio.to_string()]);
    }
    let notes = format!(
        "{}Medians of {} rounds, with quartiles; {} sentences of {} tokens in a batch.",
        gpus.first().map_or(String::new(), |gpu| format!("{gpu}. ")),
        args.rounds,
        args.sentences,
        args.tokens
    );
    contestants.into_iter().try_for_each(Contestant::end)?;
    run.finish(&args, &rows, &[], &[table], &notes)
}
