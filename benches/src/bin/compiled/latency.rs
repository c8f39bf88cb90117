//! Measures the latency of one sentence in MiniLM, on one thread.

use std::time::{Duration, Instant};

use anyhow::Result;
use benches::stats::{Ratio, Summary};
use benches::{Progress, Samples, Table, Target, time};
use ray_zerocopy::jit::{Executable, JitActorWrapper, JitActors, TracedGraph};
use serde::Serialize;

use crate::measure::WAYS;
use crate::peers::{Model, PRECISIONS, Peer};
use crate::sentences::Sentences;

#[derive(Serialize)]
pub struct Row {
    pub who: String,
    #[serde(flatten)]
    pub summary: Summary,
    /// The median of a round, in units of ONNX Runtime in 32 bits.
    #[serde(flatten)]
    pub ratio: Ratio,
}

/// A contestant. Each but `Worker` computes where the call is made.
enum Runner {
    Here(Box<Executable>),
    Worker(JitActors),
    Peer(Peer),
}

impl Runner {
    /// Embeds each sentence alone.
    fn run(&mut self, sentences: &Sentences) -> Result<Samples> {
        match self {
            Self::Peer(peer) => Ok(peer.run_each()?.into_iter().map(Duration::from_secs_f64).collect()),
            Self::Here(executable) => sentences
                .alone
                .iter()
                .map(|sentence| {
                    let begun = Instant::now();
                    executable.run(sentence.clone())?;
                    Ok(begun.elapsed())
                })
                .collect(),
            Self::Worker(actors) => sentences
                .alone
                .iter()
                .map(|sentence| {
                    let begun = Instant::now();
                    actors.run(sentence.clone()).wait()?;
                    Ok(begun.elapsed())
                })
                .collect(),
        }
    }
}

fn start(graph: &TracedGraph, model: &Model, sentences: &Sentences) -> Result<Vec<(String, Runner)>> {
    let mut runners = Vec::new();
    for way in WAYS {
        let compiled = graph.compile((way.options)())?;
        let worker = JitActorWrapper::new(&compiled).strict().threads_per_worker(1).spawn(1)?;
        runners.push((way.name.to_owned(), Runner::Here(Box::new(compiled.load("cpu")?))));
        runners.push((format!("{}, in a worker", way.name), Runner::Worker(worker)));
    }
    for (precision, name) in PRECISIONS {
        let mut peer = Peer::start(precision)?;
        peer.load(model, 1)?;
        peer.set_inputs(&sentences.alone)?;
        runners.push((name.to_owned(), Runner::Peer(peer)));
    }
    Ok(runners)
}

/// Measures all contestants in turns.
pub fn measure(
    graph: &TracedGraph,
    model: &Model,
    sentences: &Sentences,
    rounds: usize,
    progress: &Progress,
) -> Result<Vec<Row>> {
    progress.step("one sentence: loads");
    let mut runners = start(graph, model, sentences)?;
    let (mut all, mut medians) = (vec![Samples::default(); runners.len()], vec![Vec::new(); runners.len()]);
    // The first round is a warm-up.
    for round in 0..=rounds {
        progress.step(format!("one sentence: round {round}"));
        for turn in 0..runners.len() {
            let index = (round + turn) % runners.len();
            let samples = runners[index].1.run(sentences)?;
            if round > 0 {
                medians[index].push(samples.median());
                all[index].extend(samples);
            }
        }
    }
    // The first peer is ONNX Runtime in 32 bits.
    let unit = runners.len() - PRECISIONS.len();
    let mut rows = Vec::new();
    for (index, (who, runner)) in runners.into_iter().enumerate() {
        rows.push(Row { who, summary: all[index].summary(), ratio: Ratio::of(&medians[index], &medians[unit]) });
        if let Runner::Peer(peer) = runner {
            peer.end()?;
        }
    }
    Ok(rows)
}

/// The target: at most the latency of ONNX Runtime.
pub fn targets(rows: &[Row]) -> Option<Target> {
    let compiled = rows.first()?;
    let what = format!("one sentence, {}: p50 in units of ONNX Runtime, f32", compiled.who);
    Some(Target::at_most(what, 1.0, compiled.ratio.ratio))
}

/// The table.
pub fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["MiniLM, one sentence", "p50", "p99", "p50 in units of ONNX Runtime, f32"]);
    for Row { who, summary, ratio } in rows {
        table.row([who.clone(), time(summary.p50_us), time(summary.p99_us), ratio.to_string()]);
    }
    table
}
