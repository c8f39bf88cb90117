//! `rzc compile`: packs the weights of a traced graph for the CPU, and fuses operations.

use std::fs;

use anyhow::{Result, bail};
use ray_zerocopy::jit::{Compile, TracedGraph};
use serde_json::json;

use crate::Outcome;
use crate::cli;
use crate::compiled::Compiled;
use crate::files::remove_incomplete_on_signals;
use crate::output::{Output, one_line};
use crate::table::size;

pub(crate) fn run(options: &cli::Compile, output: &mut Output) -> Result<Outcome> {
    let target = options.output.clone().unwrap_or_else(|| options.graph.with_extension("compiled.rzg"));
    // Symbolic links are not followed: a dangling one exists too, and would be replaced.
    if !options.force && fs::symlink_metadata(&target).is_ok() {
        bail!("{} already exists; --force replaces it, and -o selects another file", target.display());
    }
    let graph = TracedGraph::open(&options.graph)?;
    if graph.info().is_compiled() {
        bail!("{} is compiled already", options.graph.display());
    }
    let compiled = graph.compile(Compile::f32())?;
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
        let [before, after] = [&graph, &compiled].map(|graph| size(graph.arena().size_bytes()));
        writeln!(output, "size: {before} before, {after} now")?;
    }
    Ok(Outcome::Success)
}
