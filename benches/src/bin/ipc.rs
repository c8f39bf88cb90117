//! What it costs to send bytes to another process and get as many back, with our transport and with `ipc-channel`.

use anyhow::Result;
use benches::links::{self, Link, Payload};
use benches::stats::{self, Ratio, Summary};
use benches::{Common, Progress, Run, Samples, Table, time};
use clap::Parser;
use serde::Serialize;

/// Round trips between two processes: ray-zerocopy's own transport beside the crate `ipc-channel`.
///
/// Each round trip is what a remote call does: bytes from the heap of one process go to another, which reads them all and
/// sends as many back from its own heap. The contestants take turns within each round, so that what disturbs
/// the machine disturbs all; a ratio is that of one round's medians, and the table has the median of all rounds.
///
///   ray-zerocopy               SEQPACKET socket pair, above 64 KiB a sealed memfd for each message
///   ipc-channel bytes          IpcBytesSender: the socket, in packets
///   ipc-channel shared memory  IpcSharedMemory: a memfd for each message, writable by both sides
#[derive(Parser, Serialize)]
#[command(
    name = "ipc",
    verbatim_doc_comment,
    after_help = "cargo run --release -p benches --bin ipc\ncargo run --release -p benches --bin ipc -- --rounds 100 --json"
)]
struct Args {
    /// How many rounds; each has 500 round trips of the smallest size and one of the largest with every contestant.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    #[serde(skip)]
    common: Common,
    /// Be the other end of a link.
    #[arg(long, hide = true)]
    #[serde(skip)]
    peer: Option<String>,
}

/// What was sent: how large, how often in a round, and whether the slowest ones are of interest.
const SIZES: [(usize, usize); 5] = [(64, 500), (4 << 10, 500), (256 << 10, 50), (4 << 20, 10), (64 << 20, 1)];
/// Up to this size a message is small, and what counts beside the median is how late it can be.
const SMALL: usize = 4 << 10;

/// All that is known of one size.
#[derive(Serialize)]
struct Row {
    bytes: usize,
    links: Vec<Outcome>,
}

/// One contestant at one size.
#[derive(Serialize)]
struct Outcome {
    name: &'static str,
    #[serde(flatten)]
    summary: Summary,
    /// Its time in units of ours.
    #[serde(flatten)]
    ratio: Ratio,
}

fn main() -> Result<()> {
    ray_zerocopy::init();
    let mut args = Args::parse();
    if let Some(kind) = &args.peer {
        return links::peer(kind);
    }
    let quick = args.common.quick;
    if quick {
        args.rounds = 2;
    }
    let run = Run::begin("ipc", args.common);
    let rounds = args.rounds.into();
    let sizes: Vec<_> = SIZES.into_iter().filter(|(bytes, _)| !quick || *bytes <= 4 << 20).collect();
    let progress = Progress::new(sizes.len() * rounds);
    let mut contestants = links::all()?;
    let mut rows = Vec::new();
    for (bytes, times) in sizes {
        rows.push(measure(&mut contestants, bytes, if quick { times.min(10) } else { times }, rounds, &progress)?);
    }
    contestants.into_iter().try_for_each(|link| link.end())?;
    drop(progress);

    let notes = format!(
        "Medians of {rounds} rounds, in brackets the 99th percentile; `x` in units of ray-zerocopy's time, with quartiles of the rounds."
    );
    run.finish(&args, &rows, &[], &[table(&rows)], &notes)
}

fn measure(
    contestants: &mut [Box<dyn Link>],
    bytes: usize,
    times: usize,
    rounds: usize,
    progress: &Progress,
) -> Result<Row> {
    let payload = Payload::new(bytes);
    // The peers make their answers, and every process its first buffers.
    for link in &mut *contestants {
        (0..3).try_for_each(|_| link.round_trip(&payload))?;
    }
    let mut all = vec![Samples::default(); contestants.len()];
    let mut medians = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        progress.step(stats::size(bytes));
        for turn in 0..contestants.len() {
            // Another one begins in each round.
            let index = (round + turn) % contestants.len();
            let samples = Samples::take(times, || contestants[index].round_trip(&payload))?;
            medians[index].push(samples.median());
            all[index].extend(samples);
        }
    }
    let links = contestants.iter().zip(&all).zip(&medians).map(|((link, samples), times)| Outcome {
        name: link.name(),
        summary: samples.summary(),
        ratio: Ratio::of(times, &medians[0]),
    });
    Ok(Row { bytes, links: links.collect() })
}

fn table(rows: &[Row]) -> Table {
    let names = rows.first().map(|row| row.links.iter().map(|link| link.name)).into_iter().flatten();
    let mut table = Table::new(["round trip of"].into_iter().chain(names));
    for row in rows {
        let cell = |(index, link): (usize, &Outcome)| {
            let mut text = time(link.summary.p50_us);
            if row.bytes <= SMALL {
                text += &format!(" ({})", time(link.summary.p99_us));
            }
            if index > 0 {
                text += &format!("  {}", link.ratio);
            }
            text
        };
        table.row([stats::size(row.bytes)].into_iter().chain(row.links.iter().enumerate().map(cell)));
    }
    table
}
