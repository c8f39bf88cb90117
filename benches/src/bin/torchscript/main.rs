//! What a TorchScript module costs in workers, and how fast LibTorch is as burn's backend beside PyTorch.

mod memory;
mod minilm;

use std::path::PathBuf;

use anyhow::Result;
use benches::{Common, Progress, Run, Table, Target};
use clap::Parser;
use serde::Serialize;

/// A TorchScript module in workers; and, with `--pytorch`, MiniLM on burn's LibTorch beside PyTorch itself.
///
/// Memory is by the kernel's figures, once for a module of 836 bytes, which shows what LibTorch has for itself, and once for one of the size that
/// was asked for. MiniLM runs in two processes that take turns within each round: one with weights that are borrowed from an arena, by
/// burn, and one of the Python that is named, by `benches/python/minilm_torch.py`; both on the same batches and as many threads.
#[derive(Parser, Serialize)]
#[command(
    name = "torchscript",
    after_help = "cargo xtask libtorch run --release -p benches --features torchscript --bin torchscript -- --json"
)]
struct Args {
    /// The size of the module that workers share, in MiB.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    mib: u32,
    /// How many workers, one row for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    workers: Vec<usize>,
    /// A Python with torch, safetensors and numpy, for MiniLM. Without it, MiniLM is left out.
    #[arg(long, value_name = "PYTHON")]
    pytorch: Option<PathBuf>,
    /// How many rounds MiniLM runs.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// With how many threads MiniLM computes.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Be the process that runs MiniLM with burn.
    #[arg(long, hide = true)]
    #[serde(skip)]
    burn: bool,
}

/// All figures, told apart by the field `measure`.
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
    let notes = "MemoryPolicy in MiB: PSS of all processes; Anonymous of the largest worker. The first rows are LibTorch's own: subtract them. The first load in a process makes LibTorch ready, too.\n\
                 MiniLM: medians of the rounds; `x` in units of PyTorch's own, the median of the rounds, and the middle half of them.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
