//! Measures streams: the time to the first item, items per second, and how far the worker is ahead.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use benches::stats::{self, Ratio, Summary};
use benches::{Progress, Samples, Table, time};
use ray_zerocopy::{LocalPool, TaskWrapper, Threads};
use serde::Serialize;

use crate::{Args, Model};

/// An item: a text of 64 bytes.
pub const TEXT: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-+";
/// Items of a stream whose throughput is measured.
const ITEMS: usize = 200_000;
/// Items of a stream with a slow reader, and how many of them may wait for it.
const SLOW_ITEMS: usize = 100;
const BUFFER: usize = 8;

/// A small call, or the first item of a stream.
#[derive(Serialize)]
pub struct FirstItem {
    /// Where the worker is: a `process` or a `thread`.
    engine: &'static str,
    way: &'static str,
    #[serde(flatten)]
    summary: Summary,
    /// In units of the small call.
    #[serde(flatten)]
    ratio: Ratio,
}

#[derive(Serialize)]
pub struct Stream {
    engine: &'static str,
    items: usize,
    items_per_second_median: f64,
    items_per_second_range: (f64, f64),
    /// Items that could wait for the slow reader.
    slow_buffer: usize,
    /// The most items that were made and not read, with the slow reader. The worker has made one of
    /// them, and waits to send it.
    slow_ahead_max: u64,
}

pub struct Rows {
    pub first_items: Vec<FirstItem>,
    pub streams: Vec<Stream>,
}

const ENGINES: [&str; 2] = ["process", "thread"];
const WAYS: [&str; 2] = ["small call", "first item of a stream"];

pub fn steps(rounds: u16) -> usize {
    2 * usize::from(rounds)
}

pub fn measure(model: &Model, args: &Args, progress: &Progress) -> Result<Rows> {
    let processes = LocalPool::builder().workers(1).start()?;
    let workers = [TaskWrapper::on(&processes, model)?, TaskWrapper::on(&Threads::new(1), model)?];
    let first_items = first_items(&workers, args, progress)?;

    let items = if args.common.quick { 1000 } else { ITEMS };
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..usize::from(args.rounds) {
        progress.step("items per second");
        for turn in 0..ENGINES.len() {
            let engine = (round + turn) % ENGINES.len();
            let begun = Instant::now();
            read_all(&workers[engine], items)?;
            rates[engine].push(items as f64 / begun.elapsed().as_secs_f64());
        }
    }
    let row = |engine: usize| -> Result<Stream> {
        Ok(Stream {
            engine: ENGINES[engine],
            items,
            items_per_second_median: stats::median(&rates[engine]),
            items_per_second_range: stats::range(&rates[engine]),
            slow_buffer: BUFFER,
            slow_ahead_max: read_slowly(&workers[engine])?,
        })
    };
    Ok(Rows { first_items, streams: (0..ENGINES.len()).map(row).collect::<Result<_>>()? })
}

/// Compares the first item of a stream with a small call. Both take turns, on both engines.
fn first_items(workers: &[TaskWrapper<Model>; 2], args: &Args, progress: &Progress) -> Result<Vec<FirstItem>> {
    let contestants = ENGINES.len() * WAYS.len();
    let measured = |contestant: usize| {
        let tasks = &workers[contestant / WAYS.len()];
        if contestant.is_multiple_of(WAYS.len()) { small_call(tasks) } else { first_item(tasks) }
    };
    // The first call of each worker loads the pipeline.
    (0..contestants).try_for_each(|contestant| measured(contestant).map(drop))?;

    let mut all = vec![Samples::default(); contestants];
    let mut medians = vec![Vec::new(); contestants];
    for round in 0..usize::from(args.rounds) {
        progress.step("first items");
        for turn in 0..contestants {
            let contestant = (round + turn) % contestants;
            let samples = (0..args.calls).map(|_| measured(contestant)).collect::<Result<Samples>>()?;
            medians[contestant].push(samples.median());
            all[contestant].extend(samples);
        }
    }
    let row = |contestant: usize| {
        let (engine, way) = (contestant / WAYS.len(), contestant % WAYS.len());
        FirstItem {
            engine: ENGINES[engine],
            way: WAYS[way],
            summary: all[contestant].summary(),
            ratio: Ratio::of(&medians[contestant], &medians[engine * WAYS.len()]),
        }
    };
    Ok((0..contestants).map(row).collect())
}

fn small_call(tasks: &TaskWrapper<Model>) -> Result<Duration> {
    let begun = Instant::now();
    let next = tasks.next(1).wait()?;
    let taken = begun.elapsed();
    ensure!(next == 2, "`next` returned {next} for 1");
    Ok(taken)
}

/// Returns the time to the first item. The end of the stream is awaited afterwards, so that the
/// worker is idle again.
fn first_item(tasks: &TaskWrapper<Model>) -> Result<Duration> {
    let begun = Instant::now();
    let mut stream = tasks.texts(1);
    let first = stream.next().context("the stream has no item")??;
    let taken = begun.elapsed();
    ensure!(first == TEXT && stream.next().is_none(), "the stream has other items");
    Ok(taken)
}

/// Reads a stream as fast as it arrives.
fn read_all(tasks: &TaskWrapper<Model>, items: usize) -> Result<()> {
    let mut read = 0;
    for text in tasks.texts(items) {
        ensure!(text? == TEXT, "the stream has another item");
        read += 1;
    }
    ensure!(read == items, "{read} of {items} items have arrived");
    Ok(())
}

/// Reads a stream slowly. Returns the most items that were made and not read.
fn read_slowly(tasks: &TaskWrapper<Model>) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let file: PathBuf = folder.path().join("made");
    let mut ahead = 0;
    let stream = tasks.clone().stream_buffer(BUFFER).noted_texts(SLOW_ITEMS, file.clone());
    for (read, text) in (1..).zip(stream) {
        text?.map_err(Error::msg)?;
        // A worker that did not stop would make all items meanwhile.
        std::thread::sleep(Duration::from_millis(1));
        ahead = ahead.max(std::fs::metadata(&file)?.len().saturating_sub(read));
    }
    ensure!(ahead <= BUFFER as u64 + 1, "{ahead} items were made and not read, and {BUFFER} may wait");
    Ok(ahead)
}

pub fn tables(rows: &Rows) -> [Table; 2] {
    let mut first = Table::new(["time to", "engine", "p50", "p99", "in units of the small call"]);
    for FirstItem { engine, way, summary, ratio } in &rows.first_items {
        let (p50, p99) = (time(summary.p50_us), time(summary.p99_us));
        first.row([(*way).to_owned(), (*engine).to_owned(), p50, p99, ratio.to_string()]);
    }
    let mut streams = Table::new(["stream of 64-byte items", "items", "items/s", "ahead of a slow reader", "buffer"]);
    for row in &rows.streams {
        let (low, high) = row.items_per_second_range;
        let rate = format!("{:.0} ({low:.0}..{high:.0})", row.items_per_second_median);
        let (ahead, buffer) = (row.slow_ahead_max.to_string(), row.slow_buffer.to_string());
        streams.row([row.engine.to_owned(), row.items.to_string(), rate, ahead, buffer]);
    }
    [first, streams]
}
