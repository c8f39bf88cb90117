//! `rzc graph`: shows the operations of a traced graph as a list or as a picture.

use std::collections::HashMap;

use anyhow::{Context, Result};
use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
use layout::topo::layout::VisualGraph;
use ray_zerocopy::jit::{GraphInfo, Operand, PortInfo, StepInfo};
use serde_json::json;

use super::{SHOWN, run as runs};
use crate::Outcome;
use crate::cli::Graph;
use crate::files;
use crate::output::Output;
use crate::table::{Table, count};

/// Maximum number of operations in a picture. Larger ones take minutes to draw and are unreadable.
const MOST: usize = 2000;

pub(crate) fn run(options: &Graph, output: &mut Output) -> Result<Outcome> {
    let opened = runs::open(&options.graph)?;
    let graph = opened.info();
    let steps: Vec<_> = graph.steps().collect();
    if let Some(path) = &options.svg {
        let drawn = steps.iter().filter(|step| !options.compute || step.computes).count();
        let hint = if options.compute { "" } else { "; --compute leaves out those that only rearrange data" };
        anyhow::ensure!(drawn <= MOST, "{drawn} operations are to be drawn, and a picture can show {MOST}{hint}");
        let picture = draw(graph, &steps, options.compute);
        files::write(path, |out| Ok(out.write_all(picture.as_bytes())?))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    if options.json {
        let steps: Vec<_> = steps
            .iter()
            .map(|step| {
                json!({
                    "name": step.name,
                    "reads": step.inputs.iter().map(Operand::to_string).collect::<Vec<_>>(),
                    "gives": step.outputs,
                })
            })
            .collect();
        let mut summary = summary(graph);
        summary["steps"] = steps.into();
        output.json(&summary, false)?;
        return Ok(Outcome::Success);
    }
    writeln!(output, "{}: {}", graph.origin(), count(graph.operations(), "operation"))?;
    if let Some(path) = &options.svg {
        writeln!(output, "picture written to {}", path.display())?;
        return Ok(Outcome::Success);
    }
    let steps: Vec<_> = steps.iter().enumerate().filter(|(_, step)| !options.compute || step.computes).collect();
    let shown = if options.all { steps.len() } else { steps.len().min(SHOWN) };
    let mut table = Table::new([">number", "operation", "inputs", "outputs"]);
    for (at, step) in &steps[..shown] {
        let reads: Vec<_> = step.inputs.iter().map(Operand::to_string).collect();
        table.row([at.to_string(), step.name.clone(), reads.join(", "), step.outputs.join(", ")]);
    }
    table.print("", output)?;
    match steps.len() - shown {
        0 => {}
        more => writeln!(output, "and {more} more: --all shows all of them, --svg FILE draws them")?,
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
    })
}

/// Draws a graph: inputs above, outputs below, weights as names in the operations that read them.
fn draw(graph: &GraphInfo, steps: &[StepInfo], compute: bool) -> String {
    let mut picture = VisualGraph::new(Orientation::TopToBottom);
    let style = |color: &str| {
        let mut style = StyleAttr::simple();
        style.fill_color = layout::core::color::Color::fast(color).into();
        style
    };
    let mut node = |text: String, kind: fn(&str) -> ShapeKind, color: &str| {
        let lines = text.lines().count() as f64;
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0) as f64;
        let size = Point::new(longest * 9.0 + 30.0, lines * 18.0 + 16.0);
        picture.add_node(Element::create(kind(&text), style(color), Orientation::TopToBottom, size))
    };
    let port = |port: &PortInfo| format!("{}\n{} [{}]", port.name, port.dtype, port.shape.join(", "));
    let inputs: Vec<_> = graph.inputs().map(|own| node(port(&own), ShapeKind::new_circle, "lightblue")).collect();
    // The node of each operation's result. For an omitted view, that is the node of its operand.
    let mut made = HashMap::new();
    let mut edges = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let sources: Vec<_> = step
            .inputs
            .iter()
            .filter_map(|operand| match operand {
                Operand::Input(input) => inputs.get(*input).copied(),
                Operand::Step(step) => made.get(step).copied().flatten(),
                _ => None,
            })
            .collect();
        if compute && !step.computes {
            made.insert(at, sources.first().copied());
            continue;
        }
        let weights = step.inputs.iter().filter_map(|operand| match operand {
            Operand::Constant(name) => Some(name.as_str()),
            _ => None,
        });
        let text: Vec<_> =
            std::iter::once(step.name.as_str()).chain(weights).chain(step.outputs.iter().map(String::as_str)).collect();
        let own = node(text.join("\n"), ShapeKind::new_box, if step.computes { "white" } else { "lightgray" });
        edges.extend(sources.into_iter().map(|source| (source, own)));
        made.insert(at, Some(own));
    }
    for (own, from) in graph.outputs().zip(graph.output_operands()) {
        let target = node(port(&own), ShapeKind::new_circle, "lightgreen");
        let source = match from {
            Operand::Input(input) => inputs.get(input).copied(),
            Operand::Step(step) => made.get(&step).copied().flatten(),
            _ => None,
        };
        edges.extend(source.map(|source| (source, target)));
    }
    for (from, to) in edges {
        picture.add_edge(Arrow::simple(""), from, to);
    }
    let mut svg = SVGWriter::new();
    picture.do_it(false, false, false, &mut svg);
    svg.finalize()
}
