//! Measures how many sentences per second MiniLM embeds in two workers of one thread, compared with two sessions of
//! ONNX Runtime of one thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use benches::machine::{memory_of, processor_ms_of};
use benches::stats::{self, Ratio};
use benches::{Progress, Table, Target, child};
use ray_zerocopy::jit::{JitActorWrapper, JitActors, TracedGraph};
use serde::Serialize;

use crate::compare::{difference, numbers};
use crate::measure::{PEER_TOLERANCE, WAYS};
use crate::peers::{Model, PRECISIONS, Peer, Taken};
use crate::sentences::Sentences;

/// Workers, and sessions of a peer.
const WORKERS: usize = 2;

#[derive(Serialize)]
pub struct Row {
    pub who: String,
    pub sentences: usize,
    pub sentences_per_s_median: f64,
    pub sentences_per_s_quartiles: (f64, f64),
    pub sentences_per_processor_s_median: f64,
    /// Elapsed time in units of the faster ONNX Runtime in 32 bits.
    pub time: Ratio,
    /// CPU time in the same units, which other processes affect less.
    pub processor_time: Ratio,
    /// Memory of the processes that compute: what several of them share counts once.
    pub mib: f64,
}

/// A contestant.
enum Pool {
    /// Actors of a compiled graph.
    Actors(JitActors),
    /// One process with a session in each of two threads.
    Threads(Peer),
    /// Two processes with a session each.
    Processes(Vec<Peer>),
}

impl Pool {
    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Actors(actors) => actors.workers().iter().map(|worker| worker.pid).collect(),
            Self::Threads(peer) => vec![peer.pid()],
            Self::Processes(peers) => peers.iter().map(Peer::pid).collect(),
        }
    }

    /// Embeds all sentences.
    fn run(&mut self, sentences: &Sentences) -> Result<Taken> {
        match self {
            Self::Actors(actors) => {
                // What this process computes for its workers counts, too.
                let pids: Vec<_> =
                    actors.workers().iter().map(|worker| worker.pid).chain([std::process::id()]).collect();
                let processor = || pids.iter().map(|&pid| processor_ms_of(pid)).sum::<Result<f64>>();
                let (before, begun) = (processor()?, Instant::now());
                let pending: Vec<_> = sentences.batches.iter().map(|batch| actors.run(batch.clone())).collect();
                for pending in pending {
                    pending.wait()?;
                }
                let seconds = begun.elapsed().as_secs_f64();
                Ok(Taken { seconds, processor_seconds: (processor()? - before) / 1e3 })
            }
            Self::Threads(peer) => peer.run_all(),
            Self::Processes(peers) => {
                let (next, begun) = (AtomicUsize::new(0), Instant::now());
                let processor = child::together(peers, |peer: &mut Peer| {
                    let mut processor = 0.0;
                    loop {
                        let batch = next.fetch_add(1, Ordering::Relaxed);
                        if batch >= sentences.batches.len() {
                            return Ok(processor);
                        }
                        processor += peer.run_one(batch)?.processor_seconds;
                    }
                })?;
                Ok(Taken { seconds: begun.elapsed().as_secs_f64(), processor_seconds: processor.iter().sum() })
            }
        }
    }

    /// The output of the first batch.
    fn first_output(&mut self, sentences: &Sentences) -> Result<Vec<f64>> {
        match self {
            Self::Actors(actors) => {
                let batch = sentences.batches.first().context("there are no sentences")?;
                numbers(&actors.run(batch.clone()).wait()?)
            }
            Self::Threads(peer) => peer.outputs(),
            Self::Processes(peers) => peers[0].outputs(),
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Self::Actors(_) => Ok(()),
            Self::Threads(peer) => peer.end(),
            Self::Processes(peers) => peers.into_iter().try_for_each(Peer::end),
        }
    }
}

/// Starts the contestants: a pool of each way to compile, then both pools of a peer for each precision.
fn start(graph: &TracedGraph, model: &Model, sentences: &Sentences) -> Result<Vec<(String, Pool)>> {
    let mut pools = Vec::new();
    for way in WAYS {
        let compiled = graph.compile((way.options)())?;
        let actors = JitActorWrapper::new(&compiled).strict().threads_per_worker(1).spawn(WORKERS)?;
        pools.push((format!("{}, {WORKERS} workers", way.name), Pool::Actors(actors)));
    }
    let peer = |precision, sessions| -> Result<Peer> {
        let mut peer = Peer::start(precision)?;
        peer.load(model, sessions)?;
        peer.set_inputs(&sentences.batches)?;
        Ok(peer)
    };
    for (precision, name) in PRECISIONS {
        let processes = (0..WORKERS).map(|_| peer(precision, 1)).collect::<Result<_>>()?;
        pools.push((format!("{name}, {WORKERS} threads"), Pool::Threads(peer(precision, WORKERS)?)));
        pools.push((format!("{name}, {WORKERS} processes"), Pool::Processes(processes)));
    }
    Ok(pools)
}

/// Measures all contestants in turns.
pub fn measure(
    graph: &TracedGraph,
    model: &Model,
    sentences: &Sentences,
    rounds: usize,
    progress: &Progress,
) -> Result<Vec<Row>> {
    progress.step("two workers: loads");
    let mut pools = start(graph, model, sentences)?;
    // The peers in 32 bits, of which the faster one is the unit.
    let units = WAYS.len()..WAYS.len() + 2;
    let expected = pools[0].1.first_output(sentences)?;
    for index in units.clone() {
        let (name, pool) = &mut pools[index];
        let difference = difference(&expected, &pool.first_output(sentences)?)?;
        ensure!(difference <= PEER_TOLERANCE, "{name}: results differ by {difference} of the largest number");
    }
    let (mut seconds, mut processor) = (vec![Vec::new(); pools.len()], vec![Vec::new(); pools.len()]);
    // The first round is a warm-up.
    for round in 0..=rounds {
        progress.step(format!("two workers: round {round}"));
        for turn in 0..pools.len() {
            let index = (round + turn) % pools.len();
            let taken = pools[index].1.run(sentences)?;
            if round > 0 {
                seconds[index].push(taken.seconds);
                processor[index].push(taken.processor_seconds);
            }
        }
    }
    let faster = units.min_by(|&a, &b| stats::median(&seconds[a]).total_cmp(&stats::median(&seconds[b])));
    let unit = faster.context("no peer takes part")?;
    let mut rows = Vec::new();
    for (index, (who, pool)) in pools.into_iter().enumerate() {
        let rates = |seconds: &[f64]| seconds.iter().map(|each| sentences.count as f64 / each).collect::<Vec<_>>();
        rows.push(Row {
            who,
            sentences: sentences.count,
            sentences_per_s_median: stats::median(&rates(&seconds[index])),
            sentences_per_s_quartiles: stats::quartiles(&rates(&seconds[index])),
            sentences_per_processor_s_median: stats::median(&rates(&processor[index])),
            time: Ratio::of(&seconds[index], &seconds[unit]),
            processor_time: Ratio::of(&processor[index], &processor[unit]),
            mib: stats::mib(memory_of(pool.pids())?),
        });
        pool.end()?;
    }
    Ok(rows)
}

/// The target: 1.15 times the sentences per second of ONNX Runtime.
pub fn targets(rows: &[Row]) -> Option<Target> {
    let compiled = rows.first()?;
    let what = format!("{}: time in units of the faster ONNX Runtime, f32", compiled.who);
    Some(Target::at_most(what, 1.0 / 1.15, compiled.time.ratio))
}

/// The table.
pub fn table(rows: &[Row]) -> Table {
    let heading = ["MiniLM, two workers of one thread", "sentences/s", "time, in units of ONNX Runtime, f32"];
    let mut table = Table::new(heading.into_iter().chain(["CPU time", "memory"]));
    for row in rows {
        let (low, high) = row.sentences_per_s_quartiles;
        table.row([
            row.who.clone(),
            format!("{:.0} ({low:.0}..{high:.0})", row.sentences_per_s_median),
            row.time.to_string(),
            row.processor_time.to_string(),
            format!("{:.0} MiB", row.mib),
        ]);
    }
    table
}
