//! Measures how many sentences per second callers get that each wait for their result, compared
//! with batches made by hand.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use benches::stats::{self, Ratio};
use benches::{Progress, Table, Target};
use burn::tensor::Tensor;
use ray_zerocopy::{Gather, TaskWrapper, gather};
use serde::Serialize;

use crate::Args;
use crate::contestants::{self, BATCHED, HAND_BATCHED, UNBATCHED, Workers, contestants};
use crate::service::{ROWS, Service, embed_one, tokens};

#[derive(Serialize)]
pub struct Row {
    workers: &'static str,
    calls: &'static str,
    sentences_per_s_median: f64,
    sentences_per_s_quartiles: (f64, f64),
    /// In units of unbatched calls of the same workers.
    over_unbatched: Ratio,
    /// In units of batches made by hand for worker processes.
    over_hand_batched: Ratio,
    rows_per_batch: Option<f64>,
}

pub fn measure(workers: &[Workers], texts: &[String], args: &Args, progress: &Progress) -> Result<Vec<Row>> {
    let contestants = contestants(workers);
    let batches = by_hand(texts);
    // The last turn is that of the batches made by hand.
    let hand_batched = contestants.len();
    let mut rates = vec![Vec::new(); contestants.len() + 1];
    for round in 0..usize::from(args.rounds) {
        progress.step("throughput");
        for turn in 0..rates.len() {
            let index = (round + turn) % rates.len();
            let rate = match contestants.get(index) {
                Some(contestant) => closed_loop(&contestant.tasks, texts, args)?,
                None => send_batches(&workers[0].tasks, &batches, args.length())?,
            };
            rates[index].push(rate);
        }
    }
    let row = |index: usize, (workers, calls), rows_per_batch: Option<f64>, unit: usize| Row {
        workers,
        calls,
        sentences_per_s_median: stats::median(&rates[index]),
        sentences_per_s_quartiles: stats::quartiles(&rates[index]),
        over_unbatched: Ratio::of(&rates[index], &rates[unit]),
        over_hand_batched: Ratio::of(&rates[index], &rates[hand_batched]),
        rows_per_batch,
    };
    let mut rows = Vec::new();
    for (index, contestant) in contestants.iter().enumerate() {
        let name = (contestant.workers, contestant.calls);
        rows.push(row(index, name, contestant.rows_per_batch()?, contestants::unbatched(index)));
    }
    let rows_per_batch = texts.len() as f64 / batches.len() as f64;
    rows.push(row(hand_batched, (workers[0].name, HAND_BATCHED), Some(rows_per_batch), 0));
    Ok(rows)
}

/// Runs callers that each wait for a result before the next call. Returns results per second.
fn closed_loop(tasks: &TaskWrapper<Service>, texts: &[String], args: &Args) -> Result<f64> {
    let callers = usize::from(args.callers);
    let (done, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let caller = |first: usize| -> Result<()> {
        for text in texts.iter().cycle().skip(first).step_by(callers) {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            // A caller that fails ends the measurement.
            embed_one(tasks, text).inspect_err(|_| is_over.store(true, Ordering::Relaxed))?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let caller = &caller;
    thread::scope(|scope| -> Result<f64> {
        let threads: Vec<_> = (0..callers).map(|first| scope.spawn(move || caller(first))).collect();
        // Callers have to fill the queue before it is measured.
        rate_over(args.length() / 5, &done, &is_over);
        let rate = rate_over(args.length(), &done, &is_over);
        is_over.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(rate)
    })
}

/// Counts results for some time, and until there is one, however slow the machine is. Returns
/// results per second.
fn rate_over(length: Duration, done: &AtomicUsize, is_over: &AtomicBool) -> f64 {
    const TICK: Duration = Duration::from_millis(5);

    let (begun, before) = (Instant::now(), done.load(Ordering::Relaxed));
    let results = || done.load(Ordering::Relaxed) - before;
    while !is_over.load(Ordering::Relaxed) && (begun.elapsed() < length || results() == 0) {
        thread::sleep(TICK);
    }
    results() as f64 / begun.elapsed().as_secs_f64()
}

/// Divides texts into batches of similar lengths, the longest first, as the example
/// `semantic_search` does.
fn by_hand(texts: &[String]) -> Vec<Vec<String>> {
    let mut sorted = texts.to_vec();
    sorted.sort_by_key(|text| Reverse(tokens(text)));
    sorted.chunks(ROWS).map(<[String]>::to_vec).collect()
}

/// Sends all batches again and again. Returns sentences per second.
fn send_batches(tasks: &TaskWrapper<Service>, batches: &[Vec<String>], length: Duration) -> Result<f64> {
    let send = || gather(batches.iter().map(|batch| tasks.embed(batch.clone())));
    let receive = |pass: Gather<Result<Tensor<2>, String>>| -> Result<usize> {
        let mut sentences = 0;
        for vectors in pass.wait()? {
            sentences += vectors.map_err(Error::msg)?.dims()[0];
        }
        Ok(sentences)
    };
    // A pass is always sent before the previous one has ended, so that no worker becomes idle.
    let (first, mut ahead) = (send(), send());
    receive(first)?;
    let (begun, mut sentences) = (Instant::now(), 0);
    while sentences == 0 || begun.elapsed() < length {
        let next = send();
        sentences += receive(std::mem::replace(&mut ahead, next))?;
    }
    let rate = sentences as f64 / begun.elapsed().as_secs_f64();
    // The last pass would run during the next contestant's turn.
    receive(ahead)?;
    Ok(rate)
}

/// Returns the measured rate of unbatched calls, in sentences per second.
pub fn capacity(rows: &[Row], workers: &str) -> f64 {
    let row = rows.iter().find(|row| row.workers == workers && row.calls == UNBATCHED);
    row.map_or(1.0, |row| row.sentences_per_s_median)
}

pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().filter(|row| row.calls == BATCHED).flat_map(|row| {
        let target = |unit: &str, at_least: f64, ratio: &Ratio| {
            let what = format!("{}: time of a batched sentence in units of {unit}", row.workers);
            Target::at_most(what, 1.0 / at_least, 1.0 / ratio.ratio)
        };
        let by_hand = target("one in a batch made by hand", 0.95, &row.over_hand_batched);
        [by_hand, target("an unbatched one", 3.0, &row.over_unbatched)]
    })
}

pub fn table(rows: &[Row], callers: u16) -> Table {
    let mut table = Table::new([
        format!("throughput, {callers} callers").as_str(),
        "calls",
        "sentences/s",
        "in units of unbatched",
        "in units of hand-batched",
        "rows per batch",
    ]);
    for row in rows {
        let (low, high) = row.sentences_per_s_quartiles;
        table.row([
            row.workers.to_owned(),
            row.calls.to_owned(),
            format!("{:.0} ({low:.0}..{high:.0})", row.sentences_per_s_median),
            row.over_unbatched.to_string(),
            row.over_hand_batched.to_string(),
            contestants::rows(row.rows_per_batch),
        ]);
    }
    table
}
