//! Measures the cases on one thread: the graph, its compiled graphs and the peers take turns.

use std::time::Instant;

use anyhow::{Result, ensure};
use benches::machine::processor_ms_of;
use benches::stats::{Ratio, median};
use benches::{Progress, Table, Target, time};
use ray_zerocopy::jit::{Compile, Executable, Values};
use serde::Serialize;

use crate::cases::Case;
use crate::compare::{cosine, difference, numbers};
use crate::peers::{PRECISIONS, Peer, Taken};

/// A way to compile a graph.
pub struct Way {
    pub name: &'static str,
    pub options: fn() -> Compile,
    /// Limit of the difference from the graph's results, in units of the largest number.
    difference_max: f64,
    /// Limit of the cosine of the angle to the graph's results.
    cosine_min: f64,
}

/// The ways that are measured. Each is a contestant of all measurements.
pub const WAYS: &[Way] = &[
    Way { name: "compiled", options: Compile::f32, difference_max: 1e-5, cosine_min: 0.999_999 },
    Way { name: "compiled, bf16", options: Compile::bf16, difference_max: 0.05, cosine_min: 0.999 },
    Way { name: "compiled, int8", options: Compile::int8, difference_max: 0.5, cosine_min: 0.98 },
];

/// Limit of the difference between a graph and a peer in 32 bits, in units of the largest number.
pub const PEER_TOLERANCE: f64 = 1e-4;

/// The measured time of a contestant per round: CPU time is accurate to a few milliseconds.
const ROUND_SECONDS: f64 = 0.05;

#[derive(Serialize)]
pub struct Row {
    pub model: String,
    pub operations: usize,
    /// The graph, the compiled graphs in the order of [`WAYS`], and the peers in the order of [`PRECISIONS`].
    pub contestants: Vec<Contestant>,
}

#[derive(Serialize)]
pub struct Contestant {
    pub name: &'static str,
    /// The operations of a compiled graph.
    pub operations: Option<usize>,
    pub us_median: f64,
    pub over_graph: Ratio,
    /// In units of ONNX Runtime in 32 bits, if it takes part.
    pub over_onnxruntime: Option<Ratio>,
    /// CPU time in the same units, which other processes affect less.
    pub processor_over_onnxruntime: Option<Ratio>,
    /// The largest difference from the graph's results, in units of the largest number, if both compute the same.
    pub difference: Option<f64>,
    /// The cosine of the angle to the graph's results, if both compute the same.
    pub cosine: Option<f64>,
}

/// What runs a contestant.
enum Runner<'a> {
    Own(Box<Executable>),
    Peer(&'a mut Peer),
}

impl Runner<'_> {
    /// Runs a number of times, and returns the mean elapsed time and CPU time.
    fn run(&mut self, calls: usize, inputs: &Values) -> Result<Taken> {
        let taken = match self {
            Self::Own(executable) => {
                let processor_ms = || processor_ms_of(std::process::id());
                let (before, begun) = (processor_ms()?, Instant::now());
                for _ in 0..calls {
                    executable.run(inputs.clone())?;
                }
                let seconds = begun.elapsed().as_secs_f64();
                Taken { seconds, processor_seconds: (processor_ms()? - before) / 1e3 }
            }
            Self::Peer(peer) => peer.run(calls)?,
        };
        let calls = calls as f64;
        Ok(Taken { seconds: taken.seconds / calls, processor_seconds: taken.processor_seconds / calls })
    }
}

/// A contestant before it is measured.
struct Entrant<'a> {
    name: &'static str,
    runner: Runner<'a>,
    operations: Option<usize>,
    difference: Option<f64>,
    cosine: Option<f64>,
}

/// Measures a case. `peers` is empty if they do not take part.
pub fn measure(case: Case, rounds: usize, peers: &mut [Peer], progress: &Progress) -> Result<Row> {
    let Case { model, graph, inputs, peer } = case;
    progress.step(format!("{model}: compiles"));
    let mut own = graph.load("cpu")?;
    let expected = numbers(&own.run(inputs.clone())?)?;
    let plain = Runner::Own(Box::new(own));
    let mut entrants = vec![Entrant { name: "graph", runner: plain, operations: None, difference: None, cosine: None }];
    for Way { name, options, difference_max, cosine_min } in WAYS {
        let compiled = graph.compile(options())?;
        let operations = Some(compiled.info().operations());
        let mut compiled = compiled.load("cpu")?;
        let found = numbers(&compiled.run(inputs.clone())?)?;
        let (difference, cosine) = (difference(&expected, &found)?, cosine(&expected, &found));
        ensure!(
            difference <= *difference_max && cosine >= *cosine_min,
            "{model}, {name}: results differ by {difference} of the largest number, their cosine is {cosine}"
        );
        let (runner, cosine) = (Runner::Own(Box::new(compiled)), Some(cosine));
        entrants.push(Entrant { name, runner, operations, difference: Some(difference), cosine });
    }
    let unit = entrants.len();
    for ((precision, name), process) in PRECISIONS.into_iter().zip(peers) {
        let Some(peer) = &peer else { continue };
        process.load(peer, 1)?;
        process.set_inputs([&inputs])?;
        let found = process.outputs()?;
        let runner = Runner::Peer(process);
        let mut entrant = Entrant { name, runner, operations: None, difference: None, cosine: None };
        if peer.has_same_weights {
            let difference = difference(&expected, &found)?;
            let is_same = precision == "int8" || difference <= PEER_TOLERANCE;
            ensure!(is_same, "{model}, {name}: results differ by {difference} of the largest number");
            (entrant.difference, entrant.cosine) = (Some(difference), Some(cosine(&expected, &found)));
        }
        entrants.push(entrant);
    }
    let mut calls = Vec::new();
    for entrant in &mut entrants {
        // The second call is measured: the first one may prepare.
        entrant.runner.run(1, &inputs)?;
        let once = entrant.runner.run(1, &inputs)?.seconds;
        calls.push((ROUND_SECONDS / once).ceil().clamp(1.0, 10_000.0) as usize);
    }
    let (mut micros, mut processor) = (vec![Vec::new(); entrants.len()], vec![Vec::new(); entrants.len()]);
    for round in 0..rounds {
        progress.step(format!("{model}: round {}", round + 1));
        for turn in 0..entrants.len() {
            let index = (round + turn) % entrants.len();
            let taken = entrants[index].runner.run(calls[index], &inputs)?;
            micros[index].push(taken.seconds * 1e6);
            processor[index].push(taken.processor_seconds * 1e6);
        }
    }
    let over_unit = |all: &[Vec<f64>], index: usize| all.get(unit).map(|unit| Ratio::of(&all[index], unit));
    let contestant = |(index, entrant): (usize, Entrant<'_>)| Contestant {
        name: entrant.name,
        operations: entrant.operations,
        us_median: median(&micros[index]),
        over_graph: Ratio::of(&micros[index], &micros[0]),
        over_onnxruntime: over_unit(&micros, index),
        processor_over_onnxruntime: over_unit(&processor, index),
        difference: entrant.difference,
        cosine: entrant.cosine,
    };
    let contestants = entrants.into_iter().enumerate().map(contestant).collect();
    Ok(Row { model, operations: graph.info().operations(), contestants })
}

/// The targets: of the compiled graph in units of the graph, and of it in units of ONNX Runtime.
pub fn targets(rows: &[Row]) -> impl Iterator<Item = Target> {
    rows.iter().flat_map(|row| {
        let compiled = &row.contestants[1];
        let graph = row
            .model
            .contains("8 rows")
            .then(|| Target::at_most(format!("{}: in units of the graph", row.model), 0.2, compiled.over_graph.ratio));
        let is_stack = row.model.contains(" 8 rows") || row.model.contains(" 1 row");
        let peer = compiled
            .over_onnxruntime
            .filter(|_| is_stack)
            .map(|ratio| Target::at_most(format!("{}: in units of ONNX Runtime, f32", row.model), 1.0, ratio.ratio));
        graph.into_iter().chain(peer)
    })
}

/// The table of graphs and compiled graphs.
pub fn table(rows: &[Row]) -> Table {
    let heading = ["model", "operations", "graph", "contestant", "operations", "takes", "in units of the graph"];
    let mut table = Table::new(heading.into_iter().chain(["difference"]));
    for row in rows {
        for compiled in row.contestants.iter().filter(|each| each.operations.is_some()) {
            table.row([
                row.model.clone(),
                row.operations.to_string(),
                time(row.contestants[0].us_median),
                compiled.name.to_owned(),
                compiled.operations.map_or_else(String::new, |operations| operations.to_string()),
                time(compiled.us_median),
                compiled.over_graph.to_string(),
                compiled.difference.map_or_else(String::new, |difference| format!("{difference:.1e}")),
            ]);
        }
    }
    table
}

/// The tables of all contestants in units of ONNX Runtime: elapsed time, then CPU time. Empty if it does not take part.
pub fn peers_tables(rows: &[Row]) -> Vec<Table> {
    let takes_part = |row: &&Row| row.contestants.iter().any(|each| each.over_onnxruntime.is_some());
    let Some(first) = rows.iter().find(takes_part) else { return Vec::new() };
    let names = || first.contestants.iter().map(|each| each.name);
    let new = |title, last: Option<&'static str>| Table::new(std::iter::once(title).chain(names()).chain(last));
    let mut elapsed = new("in units of ONNX Runtime, f32", Some("least cosine"));
    let mut processor = new("CPU time, in the same units", None);
    for row in rows.iter().filter(takes_part) {
        let time = |each: &Contestant| {
            let ratio = each.over_onnxruntime.filter(|_| each.name != PRECISIONS[0].1);
            ratio.map_or_else(|| time(each.us_median), |ratio| format!("{}, {ratio}", time(each.us_median)))
        };
        let cosine = row.contestants.iter().filter_map(|each| each.cosine).reduce(f64::min);
        let cells = std::iter::once(row.model.clone()).chain(row.contestants.iter().map(time));
        elapsed.row(cells.chain(cosine.map(|cosine| format!("{cosine:.4}"))));
        let ratio =
            |each: &Contestant| each.processor_over_onnxruntime.map_or_else(String::new, |ratio| ratio.to_string());
        processor.row(std::iter::once(row.model.clone()).chain(row.contestants.iter().map(ratio)));
    }
    vec![elapsed, processor]
}
