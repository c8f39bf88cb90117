//! Measures a service that gets single sentences from many callers, whose calls are put together.

mod answers;
mod burst;
mod contestants;
mod load;
mod lone;
mod open_loop;
mod service;
mod throughput;

use std::time::Duration;

use anyhow::{Result, ensure};
use benches::{Common, Progress, Run, corpora};
use clap::Parser;
use serde::Serialize;

/// Single sentences from many callers, embedded by all-MiniLM-L6-v2.
///
/// Calls run alone, or are put together by the wrapper, on worker processes and on threads. First,
/// many callers each wait for their result before the next call. Their throughput is compared with
/// that of one caller that sends batches, sorted by length, as the example `semantic_search` does.
/// Then one caller measures a lone call. Then calls arrive at random, by a Poisson process, at 80 %
/// of the measured throughput of unbatched calls. These latencies count from the time at which a
/// call was due. Contestants take turns within each round. Before that, the vectors of all
/// contestants are compared.
#[derive(Parser, Serialize)]
#[command(name = "serving", after_help = "cargo run --release -p benches --bin serving -- --burst --json")]
struct Args {
    /// Number of rounds
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds for which a contestant is measured in a round
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    seconds: f64,
    /// Number of callers, each a thread
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    callers: u16,
    /// Number of worker processes, and of threads that are workers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=512))]
    workers: u16,
    /// Number of sentences, which callers send again and again
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    texts: u16,
    /// Seed of the sentences and of the arrival times
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also measure a burst: one second with 8 times as many calls as usual
    #[arg(long)]
    burst: bool,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
}

impl Args {
    fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// Parses a number of seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it must be a number".to_owned())?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("it must be from 0.01 to 3600".to_owned()) }
}

/// A row of any measurement; the field `measure` names it.
#[derive(Serialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
enum Row {
    Answers(answers::Row),
    Throughput(throughput::Row),
    LoneCall(lone::Row),
    Load(load::Row),
    Burst(burst::Row),
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if args.common.quick {
        (args.rounds, args.seconds, args.callers, args.texts) = (1, 0.1, args.callers.min(8), 32);
    }
    let run = Run::begin("serving", args.common);
    let texts = corpora::sentences(args.texts.into(), args.seed).texts;
    let progress = Progress::new(2 + 3 * usize::from(args.rounds) + burst::steps(&args));

    progress.step("loading the model");
    let workers = contestants::start(&args)?;
    // The first call of each worker loads the pipeline.
    let answers = answers::check(&workers, &texts, &progress)?;
    let throughput = throughput::measure(&workers, &texts, &args, &progress)?;
    let lone = lone::measure(&workers, &texts, &args, &progress)?;
    let load = load::measure(&workers, &texts, &throughput, &args, &progress)?;
    let burst =
        if args.burst { burst::measure(&workers, &texts, &throughput, &load, &args, &progress)? } else { Vec::new() };
    drop(progress);

    let mut tables = vec![
        answers::table(&answers),
        throughput::table(&throughput, args.callers),
        lone::table(&lone),
        load::table(&load),
    ];
    if args.burst {
        tables.push(burst::table(&burst));
    }
    let targets = throughput::targets(&throughput).chain(lone::targets(&lone)).chain(load::targets(&load));
    let targets: Vec<_> = targets.collect();
    let are_equal = answers.iter().all(|row| row.outputs_equal);
    let rows = answers.into_iter().map(Row::Answers).chain(throughput.into_iter().map(Row::Throughput));
    let rows = rows.chain(lone.into_iter().map(Row::LoneCall)).chain(load.into_iter().map(Row::Load));
    let rows: Vec<_> = rows.chain(burst.into_iter().map(Row::Burst)).collect();
    let notes = format!(
        "Medians and quartiles of {} rounds of {} s; `x` in units of another contestant: of each round, then the same.\n\
         Workers: {} of one thread each. Hand-batched calls are those of worker processes, for all rows.\n\
         Latencies of lone calls and at 80 % load: all calls of all rounds. Rows per batch: mean.",
        args.rounds, args.seconds, args.workers
    );
    run.finish(&args, &rows, &targets, &tables, &notes)?;
    ensure!(are_equal, "outputs differ");
    Ok(())
}
