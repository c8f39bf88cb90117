//! Measures a TorchScript module in workers, and burn on LibTorch compared with PyTorch.

mod memory;
mod minilm;

use std::path::PathBuf;

use anyhow::Result;
use benches::{Common, Progress, Run, Table, Target};
use clap::Parser;
use serde::Serialize;

/// A TorchScript module in workers; and, with `--pytorch`, MiniLM in burn on LibTorch compared with
/// PyTorch.
///
/// Memory is by the kernel's figures, once for a module of 836 bytes, which shows the memory of
/// LibTorch itself, and once for a module of the given size. MiniLM runs in two processes that take
/// turns within each round: one runs burn, with weights borrowed from an arena, and the other runs
/// `benches/python/minilm_torch.py` with the given Python; both use the same batches and number of
/// threads.
#[derive(Parser, Serialize)]
#[command(
    name = "torchscript",
    after_help = "cargo xtask libtorch run --release -p benches --features torchscript --bin torchscript -- --json"
)]
struct Args {
    /// Size of the module that workers share, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    mib: u32,
    /// Numbers of workers; each gets its own row
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    workers: Vec<usize>,
    /// A Python with torch, safetensors and numpy, for MiniLM; without it, MiniLM is skipped
    #[arg(long, value_name = "PYTHON")]
    pytorch: Option<PathBuf>,
    /// Number of rounds of MiniLM
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Number of threads of MiniLM
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Run as the process that runs MiniLM with burn
    #[arg(long, hide = true)]
    #[serde(skip)]
    burn: bool,
}

/// A row of any measurement; the field `measure` names it.
#[derive(Serialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
enum Row {
    Memory(memory::Row),
    Minilm(minilm::Row),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.burn {
        return minilm::serve();
    }
    if args.common.quick {
        (args.rounds, args.mib) = (2, 64);
        args.workers = vec![1, 2];
    }
    let run = Run::begin("torchscript", args.common);
    let progress = Progress::new(2 * args.workers.len() + 1 + usize::from(args.rounds));
    let memory = memory::measure(&args, &progress)?;
    let minilm = match &args.pytorch {
        Some(python) => minilm::measure(&args, python, &progress)?,
        None => Vec::new(),
    };
    drop(progress);

    let tables: Vec<Table> = std::iter::once(memory::table(&memory)).chain(minilm::table(&minilm)).collect();
    let targets: Vec<Target> = memory::targets(&memory).collect();
    let rows: Vec<_> = memory.into_iter().map(Row::Memory).chain(minilm.into_iter().map(Row::Minilm)).collect();
    let notes = "Memory in MiB: PSS of all processes; Anonymous of the largest worker. The first rows are LibTorch's own memory: subtract them.\n\
                 The first load in a process includes the initialisation of LibTorch.\n\
                 MiniLM: medians of the rounds; `x` in units of PyTorch: median and quartiles of the rounds.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
