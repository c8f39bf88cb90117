//! Measures memory and startup time of workers that share one arena, and of workers with their own
//! copies.

mod arena;
mod copies;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use benches::model::{Forward, ModelConfig};
use benches::stats::mib;
use benches::{Common, Progress, Run, Table, Target, stats, time};
use burn::tensor::Device;
use clap::Parser;
use serde::Serialize;

/// Workers that run one model, which they borrow from one arena or copy.
///
/// The workers with their own copies are plain processes that load the model from a safetensors
/// file, which is in the page cache. They are measured first, while this process has never had a
/// model in memory. All workers run on the same input, and their outputs must be equal bit for bit.
/// PSS counts a page that n processes map as 1/n in each, so the sum is the memory that the machine
/// needs; it includes this process, which owns the arena. Anonymous is the private memory of a
/// worker, and its growth is what loading and a forward pass add to it. Attaching is to open the
/// arena, build the skeleton of the pipeline and attach the weights; for a copy it is to load the
/// file. Forward passes are timed while the other workers are idle.
#[derive(Parser, Serialize)]
#[command(
    name = "memory",
    after_help = "cargo run --release -p benches --bin memory -- --mib 1024 --workers 1,2,4 --json\n\
                  cargo run --release -p benches --bin memory -- --mib 1024 --tensors 10000 --modes arena --json"
)]
struct Args {
    /// Size of the weights, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    mib: u32,
    /// Number of tensors
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    tensors: u32,
    /// Numbers of workers; each gets its own rows
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4], value_parser = clap::value_parser!(u8).range(1..))]
    workers: Vec<u8>,
    /// Modes to measure; in mode `copy`, burn takes minutes to load a file of thousands of tensors
    #[arg(long, value_delimiter = ',', default_values_t = [Mode::Arena, Mode::Copy])]
    modes: Vec<Mode>,
    /// Number of inputs of a forward pass
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// How often workers are started for each row
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Write the model to a file
    #[arg(long, hide = true, value_name = "FILE")]
    #[serde(skip)]
    write: Option<PathBuf>,
    /// Run as a worker that has its own copy
    #[arg(long, hide = true, value_name = "FILE")]
    #[serde(skip)]
    own_copy: Option<PathBuf>,
    /// The model, in JSON
    #[arg(long, hide = true, value_name = "JSON")]
    #[serde(skip)]
    model: Option<String>,
}

/// Number of forward passes of each worker that are timed, after the first.
const FORWARDS: usize = 3;

/// Where the weights of a worker are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// In the shared arena.
    Arena,
    /// In its own heap.
    Copy,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Arena => "arena",
            Self::Copy => "copy",
        })
    }
}

/// Measurements of all rounds of one row.
#[derive(Default)]
struct Measured {
    /// Sum over this process and its workers, in bytes; maximum of the rounds.
    sum_pss: u64,
    /// Of one worker, in bytes; maximum.
    anonymous: u64,
    /// Growth of one worker by loading and a forward pass, in bytes; maximum.
    anonymous_growth: u64,
    attach_us: Vec<f64>,
    first_us: Vec<f64>,
    /// Forward passes after the first one, which maps pages.
    forward_us: Vec<f64>,
    checksums: Vec<u64>,
}

impl Measured {
    /// Adds a worker's first forward pass, with the time since the worker was started.
    fn first(&mut self, forward: Forward, after: Duration) {
        self.first_us.push(after.as_secs_f64() * 1e6);
        self.checksums.push(forward.checksum);
    }

    /// Adds a later forward pass.
    fn forward(&mut self, forward: Forward) {
        self.forward_us.push(forward.took_us);
        self.checksums.push(forward.checksum);
    }
}

#[derive(Serialize)]
struct Row {
    model_mib: f64,
    tensors: u32,
    workers: u8,
    mode: Mode,
    sum_pss_mib: f64,
    anonymous_mib_max: f64,
    anonymous_growth_mib_max: f64,
    /// Total size of the results of all layers: an upper bound for memory in use at the same time.
    activations_mib: f64,
    attach_ms_median: f64,
    attach_us_per_tensor: f64,
    spawn_to_first_result_ms_median: f64,
    forward_ms_median: f64,
    outputs_equal: bool,
}

impl Row {
    fn new(mode: Mode, workers: u8, model: &ModelConfig, expected: u64, measured: &Measured) -> Self {
        let attach_us = stats::median(&measured.attach_us);
        Self {
            model_mib: mib(model.bytes()),
            tensors: model.tensors,
            workers,
            mode,
            sum_pss_mib: mib(measured.sum_pss),
            anonymous_mib_max: mib(measured.anonymous),
            anonymous_growth_mib_max: mib(measured.anonymous_growth),
            activations_mib: mib(model.activations()),
            attach_ms_median: attach_us / 1e3,
            attach_us_per_tensor: attach_us / f64::from(model.tensors),
            spawn_to_first_result_ms_median: stats::median(&measured.first_us) / 1e3,
            forward_ms_median: stats::median(&measured.forward_us) / 1e3,
            outputs_equal: measured.checksums.iter().all(|&checksum| checksum == expected),
        }
    }
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if let Some(model) = &args.model {
        let model: ModelConfig = serde_json::from_str(model)?;
        return match (&args.write, &args.own_copy) {
            (Some(file), _) => copies::write(model, file),
            (_, Some(file)) => copies::work(model, file),
            _ => Ok(()),
        };
    }
    if args.common.quick {
        // The smallest size that is still much larger than the rest of a process.
        (args.mib, args.rounds) = (args.mib.min(64), 1);
        args.workers.truncate(2);
    }
    let config = ModelConfig::new(args.mib, args.tensors, args.batch)?;
    let run = Run::begin("memory", args.common);
    let rounds = args.rounds.into();
    let progress = Progress::new(2 + args.workers.len() * (2 * rounds + 1));

    let (mut copies, mut rows) = (Vec::new(), Vec::new());
    let (model, expected) = if args.modes.contains(&Mode::Copy) {
        progress.step("writing the model");
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("model.safetensors");
        let expected = copies::write_elsewhere(&config, &file)?;
        for &workers in &args.workers {
            let measured = copies::measure(&config, &file, workers.into(), rounds, &progress)?;
            copies.push(Row::new(Mode::Copy, workers, &config, expected, &measured));
        }
        (config.load(&file)?, expected)
    } else {
        let model = config.init(&Device::flex());
        let expected = model.forward().checksum;
        (model, expected)
    };
    if args.modes.contains(&Mode::Arena) {
        progress.step("sharing the model");
        let shared = ray_zerocopy::share(&model)?;
        drop(model);
        for &workers in &args.workers {
            let measured = arena::measure(&shared, workers.into(), rounds, &progress)?;
            rows.push(Row::new(Mode::Arena, workers, &config, expected, &measured));
        }
    }
    rows.extend(copies);
    rows.sort_by_key(|row| row.workers);
    drop(progress);

    let notes = "MiB, by the kernel's figures: PSS of all processes; Anonymous of the largest worker, and its growth.\n\
                 Medians of all workers and rounds: attaching or loading the file, time from start to first result, later forward passes.";
    run.finish(&args, &rows, &targets(&rows), &[table(&rows)], notes)?;
    ensure!(rows.iter().all(|row| row.outputs_equal), "outputs differ between workers");
    Ok(())
}

fn targets(rows: &[Row]) -> Vec<Target> {
    let mut targets = Vec::new();
    for row in rows.iter().filter(|row| row.mode == Mode::Arena) {
        let mut target = |what: &str, at_most, is| {
            targets.push(Target::at_most(format!("{} workers: {what}", row.workers), at_most, is));
        };
        if row.tensors > 32 {
            // Each tensor has a parameter, a name and more in every worker, so the limit is for the
            // time per tensor. It is CPU time: workers that attach at the same time compete for
            // cores.
            if row.workers == 1 {
                target("attach, µs per tensor", 5.0, row.attach_us_per_tensor);
            }
            continue;
        }
        target("PSS of all processes, MiB", row.model_mib + 16.0, row.sum_pss_mib);
        target("growth of a worker's own memory, MiB", 4.0 + row.activations_mib, row.anonymous_growth_mib_max);
        target("attach, ms", 2.0, row.attach_ms_median);
    }
    targets
}

fn table(rows: &[Row]) -> Table {
    let heading =
        ["workers", "mode", "weights", "PSS", "Anonymous", "growth", "attach", "per tensor", "first result", "forward"];
    let mut table = Table::new(heading);
    for row in rows {
        table.row([
            row.workers.to_string(),
            row.mode.to_string(),
            format!("{:.1}", row.model_mib),
            format!("{:.1}", row.sum_pss_mib),
            format!("{:.1}", row.anonymous_mib_max),
            format!("{:.1}", row.anonymous_growth_mib_max),
            time(row.attach_ms_median * 1e3),
            time(row.attach_us_per_tensor),
            time(row.spawn_to_first_result_ms_median * 1e3),
            time(row.forward_ms_median * 1e3),
        ]);
    }
    table
}
