//! `rzc compile`: packs the weights of a traced graph for the CPU, and fuses operations.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use ray_zerocopy::jit::{Calibration, Compile, TracedGraph, Values};
use serde_json::json;

use super::run::graph_inputs;
use crate::Outcome;
use crate::cli_graph;
use crate::cli_graph::StoredWeights;
use crate::compiled::Compiled;
use crate::files::remove_incomplete_on_signals;
use crate::output::{Output, one_line};
use crate::progress::Bar;
use crate::table::size;

pub(crate) fn run(options: &cli_graph::Compile, output: &mut Output) -> Result<Outcome> {
    let target = options.output.clone().unwrap_or_else(|| options.graph.with_extension("compiled.rzg"));
    // Symbolic links are not followed: a dangling one exists too, and would be replaced.
    if !options.force && fs::symlink_metadata(&target).is_ok() {
        bail!("{} already exists; --force replaces it, and -o selects another file", target.display());
    }
    let graph = TracedGraph::open(&options.graph)?;
    if graph.info().is_compiled() {
        bail!("{} is compiled already", options.graph.display());
    }
    let mut chosen = choose(options)?;
    let mut calibration = None;
    if let Some(most) = options.most_error {
        let bar = Bar::of_steps("calibrating");
        let done = graph.calibrate(&chosen, samples(options, &graph)?, most, |done, all| bar.show_step(done, all));
        bar.done();
        chosen = calibration.insert(done?).options();
    }
    let compiled = graph.compile(chosen)?;
    remove_incomplete_on_signals()?;
    compiled.save(&target)?;
    let done = Compiled::of(compiled.info());
    let fused = done.as_ref().map_or(0, Compiled::operations);
    if options.json {
        let report = json!({
            "input": options.graph,
            "output": target,
            "id": compiled.arena().id().to_hex(),
            "input_operations": graph.info().operations(),
            "operations": compiled.info().operations(),
            "fused_operations": fused,
            "calibration": calibration.as_ref().map(calibrated),
            "input_bytes": graph.arena().size_bytes(),
            "file_bytes": compiled.arena().size_bytes(),
        });
        output.json(&report, false)?;
    } else {
        let (before, after) = (graph.info().operations(), compiled.info().operations());
        writeln!(output, "{}: id {}", one_line(&target.display().to_string()), compiled.arena().id())?;
        writeln!(output, "operations: {before} before, {after} now, {fused} of them fused or on packed weights")?;
        if let Some(done) = &done {
            writeln!(output, "compiled: {}", done.describe())?;
        }
        if let Some(calibration) = &calibration {
            write!(output, "{calibration}")?;
        }
        let [before, after] = [&graph, &compiled].map(|graph| size(graph.arena().size_bytes()));
        writeln!(output, "size: {before} before, {after} now")?;
    }
    Ok(Outcome::Success)
}

/// How the graph is compiled.
fn choose(options: &cli_graph::Compile) -> Result<Compile> {
    let mut chosen = match options.weights {
        StoredWeights::F32 => Compile::f32(),
        StoredWeights::Bf16 => Compile::bf16(),
        StoredWeights::Int8 => Compile::int8(),
        StoredWeights::Int4 => Compile::int4(),
        StoredWeights::Exact => Compile::exact(),
    };
    if let Some(rows) = options.blocks {
        chosen = chosen.blocks_of(rows)?;
    }
    Ok(options.keep.iter().fold(chosen, Compile::keep))
}

/// Reads the samples: of the inputs of the graph, each one in each sample.
fn samples(options: &cli_graph::Compile, graph: &TracedGraph) -> Result<Vec<Values>> {
    let inputs = graph.info().inputs().count();
    let given = options.input.len();
    ensure!(
        inputs > 0 && given.is_multiple_of(inputs),
        "{given} inputs are given, and each sample has {inputs}: those of the graph, as `rzc inspect` lists them"
    );
    let sample = |(number, files): (usize, &[String])| {
        let values = graph_inputs(files, graph).with_context(|| format!("sample {}", number + 1))?;
        ensure!(values.len() == inputs, "sample {}: an input is given twice, and another one is missing", number + 1);
        Ok(values)
    };
    options.input.chunks(inputs).enumerate().map(sample).collect()
}

fn calibrated(calibration: &Calibration) -> serde_json::Value {
    let layer = |layer: &ray_zerocopy::jit::CalibratedLayer| json!({ "path": layer.path, "weights": layer.format.to_string(), "error": layer.error });
    json!({ "error": calibration.error(), "layers": calibration.layers().iter().map(layer).collect::<Vec<_>>() })
}
