//! `rzc graph`: shows the operations of a traced graph as a list or as a picture.

use std::path::Path;

use anyhow::{Context, Result};
use ray_zerocopy::jit::{GraphInfo, Operand, PortInfo};
use serde_json::json;

use super::{SHOWN, run as runs};
use crate::Outcome;
use crate::cli_graph::Graph;
use crate::compiled::Compiled;
use crate::files;
use crate::output::Output;
use crate::picture::{Picture, html, svg};
use crate::table::{Table, count};

pub(crate) fn run(options: &Graph, output: &mut Output) -> Result<Outcome> {
    let opened = runs::open(&options.graph)?;
    let graph = opened.info();
    let steps: Vec<_> = graph.steps().collect();
    let pictures: Vec<_> = options.svg.iter().chain(&options.html).collect();
    if !pictures.is_empty() {
        let picture = Picture::new(graph, options.all, None)?;
        if let Some(path) = &options.svg {
            write(path, &svg::draw(&picture))?;
        }
        if let Some(path) = &options.html {
            write(path, &html::page(&picture))?;
        }
    }
    if options.json {
        let steps: Vec<_> = steps
            .iter()
            .map(|step| {
                json!({
                    "name": step.name,
                    "reads": step.inputs.iter().map(Operand::to_string).collect::<Vec<_>>(),
                    "gives": step.outputs.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            })
            .collect();
        let mut summary = summary(graph);
        summary["steps"] = steps.into();
        output.json(&summary, false)?;
        return Ok(Outcome::Success);
    }
    writeln!(output, "{}: {}", graph.origin(), count(graph.operations(), "operation"))?;
    for path in &pictures {
        writeln!(output, "picture written to {}", path.display())?;
    }
    if !pictures.is_empty() {
        return Ok(Outcome::Success);
    }
    let steps: Vec<_> = steps.iter().enumerate().filter(|(_, step)| options.all || step.computes).collect();
    let shown = if options.all { steps.len() } else { steps.len().min(SHOWN) };
    let mut table = Table::new([">number", "operation", "inputs", "outputs"]);
    for (at, step) in &steps[..shown] {
        let reads: Vec<_> = step.inputs.iter().map(Operand::to_string).collect();
        table.row([
            at.to_string(),
            step.name.clone(),
            reads.join(", "),
            step.outputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        ]);
    }
    table.print("", output)?;
    match graph.operations() - shown {
        0 => {}
        more => writeln!(output, "and {more} more: --all shows all of them, --svg FILE or --html FILE draws them")?,
    }
    Ok(Outcome::Success)
}

/// Returns the inputs and outputs of a graph as JSON.
pub(super) fn summary(graph: &GraphInfo) -> serde_json::Value {
    let port = |port: PortInfo| json!({ "name": port.name, "dtype": port.dtype, "shape": port.shape });
    json!({
        "origin": graph.origin(),
        "operations": graph.operations(),
        "inputs": graph.inputs().map(port).collect::<Vec<_>>(),
        "outputs": graph.outputs().map(port).collect::<Vec<_>>(),
        "compiled": Compiled::of(graph).map(|compiled| compiled.json()),
    })
}

/// Writes a picture.
pub(super) fn write(path: &Path, picture: &str) -> Result<()> {
    let written = files::write(path, |out| Ok(out.write_all(picture.as_bytes())?));
    written.with_context(|| format!("{} cannot be written", path.display()))
}
