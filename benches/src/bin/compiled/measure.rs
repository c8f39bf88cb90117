//! Measures the cases on one thread: the graph, its compiled graphs and the peers take turns.

use std::time::Instant;

use anyhow::{Result, ensure};
use benches::stats::{Ratio, median};
use benches::{Progress, Table, Target, time};
use ray_zerocopy::jit::{Compile, Executable, Values};
use serde::Serialize;

use crate::cases::Case;
use crate::compare::{cosine, difference, numbers};
use crate::peers::{PRECISIONS, Peer};

/// A way to compile a graph.
pub struct Way {
    pub name: &'static str,
    pub options: fn() -> Compile,
    /// Limit of the difference from the graph's results, in units of the largest number.
    pub tolerance: f64,
}

/// The ways that are measured. Each is a contestant of all measurements.
pub const WAYS: &[Way] = &[Way { name: "compiled", options: Compile::f32, tolerance: 1e-5 }];

/// Limit of the difference between a graph and a peer in 32 bits, in units of the largest number.
pub const PEER_TOLERANCE: f64 = 1e-4;

/// The measured time of a contestant per round, in microseconds.
const ROUND_US: f64 = 2e4;

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
    /// Returns the mean duration of a number of runs, in microseconds.
    fn micros(&mut self, calls: usize, inputs: &Values) -> Result<f64> {
        let seconds = match self {
            Self::Own(executable) => {
                let begun = Instant::now();
                for _ in 0..calls {
                    executable.run(inputs.clone())?;
                }
                begun.elapsed().as_secs_f64()
            }
            Self::Peer(peer) => peer.run(calls)?.seconds,
        };
        Ok(seconds * 1e6 / calls as f64)
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
    for Way { name, options, tolerance } in WAYS {
        let compiled = graph.compile(options())?;
        let operations = Some(compiled.info().operations());
        let mut compiled = compiled.load("cpu")?;
        let found = numbers(&compiled.run(inputs.clone())?)?;
        let difference = difference(&expected, &found)?;
        ensure!(difference <= *tolerance, "{model}, {name}: results differ by {difference} of the largest number");
        let (runner, cosine) = (Runner::Own(Box::new(compiled)), Some(cosine(&expected, &found)));
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
            let is_same = precision != "f32" || difference <= PEER_TOLERANCE;
            ensure!(is_same, "{model}, {name}: results differ by {difference} of the largest number");
            (entrant.difference, entrant.cosine) = (Some(difference), Some(cosine(&expected, &found)));
        }
        entrants.push(entrant);
    }
    let mut calls = Vec::new();
    for entrant in &mut entrants {
        // The second call is measured: the first one may prepare.
        entrant.runner.micros(1, &inputs)?;
        let once = entrant.runner.micros(1, &inputs)?;
        calls.push((ROUND_US / once).ceil().clamp(1.0, 10_000.0) as usize);
    }
    let mut micros = vec![Vec::new(); entrants.len()];
    for round in 0..rounds {
        progress.step(format!("{model}: round {}", round + 1));
        for turn in 0..entrants.len() {
            let index = (round + turn) % entrants.len();
            micros[index].push(entrants[index].runner.micros(calls[index], &inputs)?);
        }
    }
    let contestant = |(entrant, figures): (Entrant<'_>, &Vec<f64>)| Contestant {
        name: entrant.name,
        operations: entrant.operations,
        us_median: median(figures),
        over_graph: Ratio::of(figures, &micros[0]),
        over_onnxruntime: micros.get(unit).map(|unit| Ratio::of(figures, unit)),
        difference: entrant.difference,
        cosine: entrant.cosine,
    };
    let contestants = entrants.into_iter().zip(&micros).map(contestant).collect();
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

/// The table of all contestants, with ratios in units of ONNX Runtime. `None` if it does not take part.
pub fn peers_table(rows: &[Row]) -> Option<Table> {
    let takes_part = |row: &&Row| row.contestants.iter().any(|each| each.over_onnxruntime.is_some());
    let first = rows.iter().find(takes_part)?;
    let names = first.contestants.iter().map(|each| each.name);
    let mut table = Table::new(std::iter::once("in units of ONNX Runtime, f32").chain(names).chain(["least cosine"]));
    for row in rows.iter().filter(takes_part) {
        let cell = |each: &Contestant| {
            let ratio = each.over_onnxruntime.filter(|_| each.name != PRECISIONS[0].1);
            ratio.map_or_else(|| time(each.us_median), |ratio| format!("{}, {ratio}", time(each.us_median)))
        };
        let cosine = row.contestants.iter().filter_map(|each| each.cosine).reduce(f64::min);
        let cells = std::iter::once(row.model.clone()).chain(row.contestants.iter().map(cell));
        table.row(cells.chain(cosine.map(|cosine| format!("{cosine:.4}"))));
    }
    Some(table)
}
