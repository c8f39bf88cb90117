//! Measures compiled graphs, compared with the graphs that they were compiled from and with other runtimes.
//!
//! | file | content |
//! | --- | --- |
//! | `cases` | the models and their inputs |
//! | `measure` | all cases, on one thread |
//! | `memory` | memory of workers |
//! | `reading` | one row of linear layers, compared with `memcpy` of the weights |
//! | `sentences` | sentences as token ids |
//! | `throughput` | MiniLM in two workers, compared with two sessions of a peer |
//! | `latency` | one sentence in MiniLM |
//! | `operations` | time of each kind of operation |
//! | `peers` | the processes of other runtimes |
//! | `compare` | comparison of outputs |

mod cases;
mod compare;
mod latency;
mod measure;
mod memory;
mod operations;
mod peers;
mod reading;
mod sentences;
mod throughput;

use anyhow::Result;
use benches::{Common, Progress, Run, Table, Target};
use burn::tensor::Device;
use clap::Parser;
use ray_zerocopy_examples::encoder::Encoder;
use ray_zerocopy_examples::minilm::fetch;
use serde::Serialize;

use peers::Peer;
use sentences::Sentences;

/// Compiled graphs compared with the graphs that they were compiled from, and with ONNX Runtime and PyTorch.
///
/// The graphs run in this process on one thread, in turns within each round, on the same inputs. Outputs of compiled
/// graphs must be equal within 1e-5 of the largest number, and those of 8-bit weights have a cosine of 0.98. At last, four
/// workers run graphs of 1 GiB, whose memory is measured.
///
/// With `--peers`, ONNX Runtime and PyTorch take turns with them, each in a process of its own and on one thread; where
/// they have the same weights, outputs must be equal within 1e-4. Then MiniLM embeds sentences in two workers of one
/// thread, compared with two sessions of each, and single sentences. Batches are made and tokenised before.
#[derive(Parser, Serialize)]
#[command(name = "compiled", after_help = "cargo run --release -p benches --bin compiled -- --json")]
struct Args {
    /// Number of rounds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Compare with ONNX Runtime and PyTorch, which `cargo xtask peers` fetches
    #[arg(long)]
    peers: bool,
    /// Also measure the time of each kind of operation, in compiled graphs and in the peers
    #[arg(long)]
    operations: bool,
    /// Number of sentences that two workers embed in a round
    #[arg(long, default_value_t = 612, value_parser = clap::value_parser!(u16).range(1..))]
    sentences: u16,
    /// Seed of the sentences
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

/// A row of any measurement; the field `measure` names it.
#[derive(Serialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
enum Row {
    Forward(measure::Row),
    Throughput(throughput::Row),
    Latency(latency::Row),
    Memory(memory::Row),
    Operations(operations::Row),
    Reading(reading::Row),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.common.quick {
        (args.rounds, args.sentences) = (2, 40);
    }
    // First of all: it fails without the environment.
    let mut peers = if args.peers { Peer::of_each_precision()? } else { Vec::new() };
    // Before rayon starts: one thread, as a worker of a pool has.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let run = Run::begin("compiled", args.common);
    let rounds = usize::from(args.rounds);
    let cases = cases::cases(args.common.quick)?;
    let steps = if args.operations { cases.len() } else { 0 };
    let progress =
        Progress::new((cases.len() + 4 * usize::from(args.peers)) * (1 + rounds) + 1 + rounds + memory::COUNT + steps);

    let mut operations = Vec::new();
    if args.operations {
        for case in &cases {
            operations.extend(operations::measure(case, &mut peers, &progress)?);
        }
    }
    let measure = |case| measure::measure(case, rounds, &mut peers, &progress);
    let forward = cases.into_iter().map(measure).collect::<Result<Vec<_>>>()?;
    peers.into_iter().try_for_each(Peer::end)?;
    let (mut throughput, mut latency) = (Vec::new(), Vec::new());
    if args.peers {
        let files = fetch::model_files()?;
        let (graph, model) = (Encoder::from_files(&files, &Device::flex())?.trace()?, cases::minilm(&files));
        let sentences = Sentences::pick(&files, args.sentences.into(), args.seed)?;
        throughput = throughput::measure(&graph, &model, &sentences, rounds, &progress)?;
        latency = latency::measure(&graph, &model, &sentences, rounds, &progress)?;
    }
    let reading = reading::measure(args.common.quick, rounds, &progress)?;
    let memory = memory::measure(args.common.quick, &progress)?;
    drop(progress);

    let mut tables: Vec<Table> =
        std::iter::once(measure::table(&forward)).chain(measure::peers_tables(&forward)).collect();
    if args.peers {
        tables.extend([throughput::table(&throughput), latency::table(&latency)]);
    }
    tables.extend([reading::table(&reading), memory::table(&memory)]);
    tables.extend((!operations.is_empty()).then(|| operations::table(&operations)));
    let others = throughput::targets(&throughput).into_iter().chain(latency::targets(&latency));
    let others = others.chain(reading::targets(&reading));
    let targets: Vec<Target> = measure::targets(&forward).chain(others).chain(memory::targets(&memory)).collect();
    let rows = forward.into_iter().map(Row::Forward).chain(throughput.into_iter().map(Row::Throughput));
    let rows = rows.chain(latency.into_iter().map(Row::Latency));
    let rows = rows.chain(operations.into_iter().map(Row::Operations));
    let rows = rows.chain(reading.into_iter().map(Row::Reading));
    let rows: Vec<_> = rows.chain(memory.into_iter().map(Row::Memory)).collect();
    let notes = "Medians; ratios: median and quartiles of the rounds. One thread, and in workers one thread each.\n\
                 Differences from the graph's results, in units of the largest number.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
