//! How fast a model computes with its weights on the heap and in an arena, and what an aligning allocator changes.

mod net;
mod sys;

use std::collections::HashMap;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use benches::child::{Talking, say, serve, this_program};
use benches::stats::{self, Ratio};
use benches::{Common, Progress, Run, Table, Target, time};
use burn::tensor::Device;
use clap::Parser;
use ray_zerocopy::memory::{HugePages, MemoryPolicy};
use ray_zerocopy::{Arena, load, share};
use serde::{Deserialize, Serialize};

use net::{Forward, Net, NetConfig, Workload};

#[global_allocator]
static ALLOCATOR: sys::Switchable = sys::Switchable::new();

/// A forward pass with weights on the heap, in an arena of small pages, and in one of huge pages.
///
/// Linear layers at small batches are bound by reading their weights: there it shows how fast they can be read. The heap
/// is that of the system's allocator, which places large blocks 16 bytes after a multiple of 64; entries of an arena
/// are at multiples of 256. A second process has an allocator that aligns large blocks to 64 bytes, also those of inputs and
/// activations. Contestants take turns within each round, and have to give the same bits.
#[derive(Parser, Serialize)]
#[command(name = "forward", after_help = "cargo run --release -p benches --bin forward -- --json")]
struct Args {
    /// How many linear layers.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    layers: u16,
    /// How wide they are.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..=16384))]
    width: u16,
    /// How many inputs the linear layers get at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 32], value_parser = clap::value_parser!(u16).range(1..))]
    batches: Vec<u16>,
    /// How many rounds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How many threads compute. Default: one for each core.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Be a process that computes, with the arenas of these files.
    #[arg(long, hide = true, value_name = "JSON")]
    #[serde(skip)]
    compute: Option<String>,
}

/// Where the weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Weights {
    Heap,
    Arena,
    ArenaHugePages,
}

/// Who computes: which weights, in the process with which allocator.
type Contestant = (Weights, &'static str);

/// The first is what the others are compared with.
const CONTESTANTS: [Contestant; 6] = [
    (Weights::Heap, PLAIN),
    (Weights::Arena, PLAIN),
    (Weights::ArenaHugePages, PLAIN),
    (Weights::Heap, ALIGNED),
    (Weights::Arena, ALIGNED),
    (Weights::ArenaHugePages, ALIGNED),
];
const PLAIN: &str = "system";
const ALIGNED: &str = "aligned";

/// What a process that computes says first.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    aligned: bool,
    /// Where weights begin, modulo 64.
    offset: HashMap<Weights, usize>,
    huge_pages_mib: f64,
    huge_pages: String,
}

#[derive(Serialize)]
struct Row {
    /// `linear` or `encoder`.
    model: &'static str,
    /// How many inputs, or how many sequences.
    batch: usize,
    #[serde(skip)]
    workload: Workload,
    weights: Weights,
    allocator: &'static str,
    /// Where the first weight begins, modulo 64.
    weights_offset: usize,
    /// How much of the weights' memory is mapped as huge pages.
    huge_pages_mib: f64,
    forward_ms_median: f64,
    /// Of all threads, as exact as the kernel's clock ticks.
    processor_ms_median: f64,
    /// The time in units of the heap with the system's allocator.
    #[serde(flatten)]
    ratio: Ratio,
    outputs_equal: bool,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if let Some(arenas) = &args.compute {
        let arenas: Vec<_> = serde_json::from_str(arenas)?;
        return compute(&arenas);
    }
    let mut config = NetConfig { layers: 0, width: 0, encoder_width: 384, encoder_layers: 6 };
    let mut encoder = Workload::Encoder(32, 32);
    if args.common.quick {
        (args.layers, args.width, args.rounds) = (4, 512, 2);
        (config.encoder_width, config.encoder_layers, encoder) = (64, 1, Workload::Encoder(2, 8));
    }
    (config.layers, config.width) = (args.layers.into(), args.width.into());
    let run = Run::begin("forward", args.common);
    let mut workloads: Vec<_> = args.batches.iter().map(|&batch| Workload::Linear(batch.into())).collect();
    workloads.push(encoder);
    let rounds = usize::from(args.rounds);
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let threads = args.threads.map_or(cores, Into::into);
    let progress = Progress::new(2 + workloads.len() * rounds);

    progress.step("sharing the model, and making huge pages");
    let model = config.init(&Device::flex());
    let (small, huge) = (share(&model)?, share(&model)?);
    drop(model);
    huge.apply_policy(MemoryPolicy::default().huge_pages(HugePages::Now));
    let file =
        |arena: &Arena| format!("/proc/{}/fd/{}", std::process::id(), arena.fd().map_or(-1, |fd| fd.as_raw_fd()));
    let arenas = serde_json::to_string(&[(Weights::Arena, file(&small)), (Weights::ArenaHugePages, file(&huge))])?;

    progress.step("starting processes");
    let program = || {
        let mut program = this_program();
        program.args(["--compute", &arenas]).env("RAYON_NUM_THREADS", threads.to_string());
        program
    };
    let mut plain = Talking::start(program().env_remove(sys::ALIGNED))?;
    let mut aligned = Talking::start(program().env(sys::ALIGNED, "1"))?;
    let ready = [plain.hear::<Ready>()?, aligned.hear::<Ready>()?];
    ensure!(!ready[0].aligned && ready[1].aligned, "the allocator does not do as it is told: {ready:?}");

    let mut rows = Vec::new();
    for workload in workloads {
        let mut forwards = vec![Vec::new(); CONTESTANTS.len()];
        // The first round maps pages, and is not counted.
        for round in 0..=rounds {
            if round > 0 {
                progress.step(workload.to_string());
            }
            for turn in 0..CONTESTANTS.len() {
                let index = (round + turn) % CONTESTANTS.len();
                let (weights, allocator) = CONTESTANTS[index];
                let process = if allocator == ALIGNED { &mut aligned } else { &mut plain };
                let forward: Forward = process.ask(&(weights, workload))?;
                forwards[index].push(forward);
            }
        }
        rows.extend(make_rows(workload, &forwards, &ready));
    }
    plain.end()?;
    aligned.end()?;
    drop(progress);

    let notes = format!(
        "Medians of {rounds} rounds; `x` in units of the heap with the system's allocator, with quartiles of the rounds.\n\
         Offset: where the first weight begins, modulo 64. Huge pages of the arena: {}.",
        ready[0].huge_pages
    );
    run.finish(&args, &rows, &targets(&rows), &[table(&rows)], &notes)?;
    ensure!(rows.iter().all(|row| row.outputs_equal), "outputs differ");
    Ok(())
}

fn make_rows(workload: Workload, forwards: &[Vec<Forward>], ready: &[Ready; 2]) -> Vec<Row> {
    let times: Vec<Vec<_>> =
        forwards.iter().map(|forwards| forwards.iter().skip(1).map(|forward| forward.took_ms).collect()).collect();
    let expected = forwards.first().and_then(|forwards| forwards.first()).map(|forward| forward.checksum);
    let row = |(index, (weights, allocator)): (usize, &Contestant)| {
        let ready = &ready[usize::from(*allocator == ALIGNED)];
        let processor: Vec<_> = forwards[index].iter().skip(1).map(|forward| forward.processor_ms).collect();
        let (model, batch) = match workload {
            Workload::Linear(batch) => ("linear", batch),
            Workload::Encoder(batch, _) => ("encoder", batch),
        };
        Row {
            model,
            batch,
            workload,
            weights: *weights,
            allocator,
            weights_offset: ready.offset.get(weights).copied().unwrap_or_default(),
            huge_pages_mib: if *weights == Weights::ArenaHugePages { ready.huge_pages_mib } else { 0.0 },
            forward_ms_median: stats::median(&times[index]),
            processor_ms_median: stats::median(&processor),
            ratio: Ratio::of(&times[index], &times[0]),
            outputs_equal: forwards[index].iter().all(|forward| Some(forward.checksum) == expected),
        }
    };
    CONTESTANTS.iter().enumerate().map(row).collect()
}

/// A process that computes, until nobody asks any more.
fn compute(arenas: &[(Weights, String)]) -> Result<()> {
    let device = Device::flex();
    let mut models: Vec<(Weights, Net)> = Vec::new();
    let (mut huge_pages_mib, mut huge_pages) = (0.0, String::new());
    for (weights, file) in arenas {
        let fd = std::fs::File::open(file).with_context(|| format!("{file} cannot be opened"))?;
        let arena = Arena::from_memfd(fd.into())?;
        if *weights == Weights::ArenaHugePages {
            // They are there already, and only have to be mapped.
            let outcome = arena.apply_policy(MemoryPolicy::default().huge_pages(HugePages::Now)).huge_pages;
            (huge_pages_mib, huge_pages) = (outcome.bytes() as f64 / f64::from(1 << 20), outcome.to_string());
        }
        let model = load::<Net>(&arena, &device)?.strict()?.into_inner();
        if models.is_empty() {
            models.push((Weights::Heap, model.on_heap()));
        }
        models.push((*weights, model));
    }
    let offset = models.iter().filter_map(|(weights, model)| Some((*weights, model.alignment()?))).collect();
    say(&Ready { aligned: ALLOCATOR.is_on(), offset, huge_pages_mib, huge_pages })?;
    serve(|(weights, workload): (Weights, Workload)| {
        let model = models.iter().find(|(known, _)| *known == weights).context("there are no such weights")?;
        model.1.run(workload)
    })
}

fn targets(rows: &[Row]) -> Vec<Target> {
    let of = |weights, workload| {
        rows.iter().find(|row| row.workload == workload && row.allocator == PLAIN && row.weights == weights)
    };
    let mut targets = Vec::new();
    for batch in [1, 8] {
        let workload = Workload::Linear(batch);
        let (Some(arena), Some(huge)) = (of(Weights::Arena, workload), of(Weights::ArenaHugePages, workload)) else {
            continue;
        };
        if batch == 8 {
            targets.push(Target::at_most(
                "batch 8: the arena's time in units of the heap's",
                1.0 / 1.5,
                arena.ratio.ratio,
            ));
        }
        let what = format!("batch {batch}: huge pages' time in units of small pages'");
        targets.push(Target::at_most(what, 1.0, huge.forward_ms_median / arena.forward_ms_median));
    }
    targets
}

fn table(rows: &[Row]) -> Table {
    let mut table =
        Table::new(["forward pass", "weights", "allocator", "offset", "takes", "processor", "in units of the heap"]);
    for row in rows {
        let weights = match row.weights {
            Weights::Heap => "heap",
            Weights::Arena => "arena",
            Weights::ArenaHugePages => "arena, huge pages",
        };
        table.row([
            row.workload.to_string(),
            weights.to_owned(),
            row.allocator.to_owned(),
            row.weights_offset.to_string(),
            time(row.forward_ms_median * 1e3),
            time(row.processor_ms_median * 1e3),
            row.ratio.to_string(),
        ]);
    }
    table
}
