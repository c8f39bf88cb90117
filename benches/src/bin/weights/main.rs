//! Measures the life of weights: programs that find one arena, files that are sealed, and adapters of one
//! base.

mod found;
mod sealing;
mod swaps;
mod variants;

use std::path::PathBuf;

use anyhow::Result;
use benches::model::ModelConfig;
use benches::{Common, Progress, Run};
use clap::Parser;
use serde::Serialize;

/// Weights that several programs find, and files that become sealed memory.
///
/// First, programs that do not know each other open one file at once: one of them makes the arena, and
/// the others get it. Their PSS is taken when each of them has read all weights. Then the program that
/// made it is killed, and another one comes. Then a larger file is sealed, in turns with `cat`: once
/// with the file on the disk, and once with the file in the page cache. Then a pool of processes and
/// one of threads serve calls from 4 threads, and move to other weights again and again. Last, workers on
/// one base get LoRA adapters, and use another one for each call.
#[derive(Parser, Serialize)]
#[command(name = "weights", after_help = "cargo run --release -p benches --bin weights -- --rounds 5 --json")]
struct Args {
    /// Size of the weights that programs find, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    mib: u32,
    /// Number of programs
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(2..))]
    programs: u8,
    /// Number of LoRA adapters
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(2..))]
    adapters: u8,
    /// Size of the file that is sealed, in MiB
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    seal_mib: u32,
    /// Size of the weights that are swapped, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    swap_mib: u32,
    /// Number of swaps
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..))]
    swaps: u16,
    /// Number of rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Parts to measure
    #[arg(long, value_delimiter = ',', default_values_t = [Part::Found, Part::Sealing, Part::Swaps, Part::Variants])]
    parts: Vec<Part>,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Run as another program: its part, and what it does
    #[arg(long, hide = true, value_name = "ROLE")]
    #[serde(skip)]
    role: Option<String>,
    /// The file of the role
    #[arg(long, hide = true, value_name = "FILE")]
    #[serde(skip)]
    file: Option<PathBuf>,
    /// The model, in JSON
    #[arg(long, hide = true, value_name = "JSON")]
    #[serde(skip)]
    model: Option<String>,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// Programs that find one arena.
    Found,
    /// Files that are sealed.
    Sealing,
    /// Swaps under load.
    Swaps,
    /// LoRA adapters of one base.
    Variants,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Found => "found",
            Self::Sealing => "sealing",
            Self::Swaps => "swaps",
            Self::Variants => "variants",
        })
    }
}

/// A row of any part; the field `measure` names it.
#[derive(Serialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
enum Row {
    Found(found::Row),
    Sealing(sealing::Row),
    Swaps(swaps::Row),
    Variants(variants::Row),
}

/// Number of tensors of the models.
const TENSORS: u32 = 32;

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if let (Some(role), Some(file)) = (&args.role, &args.file) {
        let model = args.model.as_deref().map(serde_json::from_str::<ModelConfig>).transpose()?;
        return match model {
            Some(_) if role == "write-adapters" => variants::write(args.mib, args.adapters.into(), file),
            Some(model) if role == "write" => sealing::write(model, file),
            Some(model) => found::run(role, model, file),
            None => sealing::seal(file),
        };
    }
    if args.common.quick {
        (args.mib, args.seal_mib, args.programs, args.rounds) = (args.mib.min(32), args.seal_mib.min(32), 3, 1);
        (args.swap_mib, args.swaps) = (args.swap_mib.min(16), args.swaps.min(4));
        args.adapters = 3;
    }
    let run = Run::begin("weights", args.common);
    let progress = Progress::new(args.parts.len() * (2 + usize::from(args.rounds)));
    let (mut rows, mut targets, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    if args.parts.contains(&Part::Found) {
        let row = found::measure(&args, &progress)?;
        targets.extend(found::targets(&row));
        tables.push(found::table(&row));
        rows.push(Row::Found(row));
    }
    if args.parts.contains(&Part::Sealing) {
        let measured = sealing::measure(&args, &progress)?;
        targets.extend(sealing::targets(&measured));
        tables.push(sealing::table(&measured));
        rows.extend(measured.into_iter().map(Row::Sealing));
    }
    if args.parts.contains(&Part::Swaps) {
        let measured = swaps::measure(&args, &progress)?;
        targets.extend(swaps::targets(&measured));
        tables.push(swaps::table(&measured));
        rows.extend(measured.into_iter().map(Row::Swaps));
    }
    if args.parts.contains(&Part::Variants) {
        let row = variants::measure(&args, &progress)?;
        targets.extend(variants::targets(&row));
        tables.push(variants::table(&row));
        rows.push(Row::Variants(row));
    }
    drop(progress);
    let notes = "Medians of all rounds, ratios of the same round with quartiles. PSS: the sum over all programs, maximum of all \
                 rounds.\nReady: from the start of the process to a loaded pipeline.";
    run.finish(&args, &rows, &targets, &tables, notes)
}
