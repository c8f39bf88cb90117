//! `rzc run`: a traced graph, on tensors from files.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, Device, TensorData};
use ray_zerocopy::jit::{PortInfo, TracedGraph, Value, Values};
use ray_zerocopy::{ArenaFile, TensorKind};
use serde_json::json;

use crate::Outcome;
use crate::cli::Run;
use crate::npy;
use crate::output::Output;
use crate::progress::Bar;
use crate::table::Table;

pub(crate) fn run(options: &Run, output: &mut Output) -> Result<Outcome> {
    let graph = open(&options.graph)?;
    let ports: Vec<_> = graph.inputs().collect();
    let mut inputs = Values::new();
    for (name, file) in &options.input {
        let port = port(&ports, name.as_deref(), "input")?;
        let data = fitting(npy::read(file)?, port).with_context(|| format!("input `{}`", port.name))?;
        let value = Value::from_data(data, &Device::flex()).map_err(anyhow::Error::msg);
        inputs.insert(&port.name, value.with_context(|| format!("input `{}`", port.name))?);
    }
    let targets = targets(options, &graph)?;
    let mut replay = graph.load(&options.device)?;
    let begun = Instant::now();
    let outputs = replay.run(inputs)?;
    let data = outputs.names().map(|name| Ok((name.to_owned(), outputs.data(name)?))).collect::<Result<Vec<_>>>()?;
    let took = begun.elapsed();

    let mut table = Table::new(["output", "type", "shape", ">least", ">mean", ">most", "written to"]);
    let mut reports = Vec::new();
    for (name, data) in &data {
        let target = targets.iter().find(|(own, _)| own == name).map(|(_, path)| path);
        if let Some(path) = target {
            npy::write(path, data, options.force)?;
        }
        let (least, mean, most) = figures(data);
        let shape = data.shape().to_vec();
        let path = target.map(|path| path.display().to_string()).unwrap_or_default();
        let number = |number: f64| format!("{number:.6}");
        let dtype = format!("{:?}", data.dtype());
        table.row([name.clone(), dtype.clone(), format!("{shape:?}"), number(least), number(mean), number(most), path]);
        reports.push(json!({
            "name": name, "dtype": dtype, "shape": shape, "least": least, "mean": mean, "most": most, "file": target,
        }));
    }
    match options.json {
        true => output.json(
            &json!({
                "graph": options.graph,
                "device": options.device,
                "milliseconds": took.as_secs_f64() * 1e3,
                "copied_bytes": replay.copied().iter().map(|copied| copied.bytes).sum::<u64>(),
                "outputs": reports,
            }),
            false,
        )?,
        false => {
            table.print("", output)?;
            writeln!(output, "\n{} operations in {took:.2?} on {}", graph.operations(), options.device)?;
        }
    }
    Ok(Outcome::Well)
}

/// Opens a graph, and shows how far that is.
pub(super) fn open(path: &PathBuf) -> Result<TracedGraph> {
    let open = || -> Result<TracedGraph> {
        let file = ArenaFile::open(path)?;
        let bar = Bar::new(&path.display().to_string());
        let arena = file.seal(&mut |progress| bar.show(progress));
        bar.done();
        Ok(TracedGraph::from_arena(&arena?)?)
    };
    open().with_context(|| path.display().to_string())
}

/// The input or output of a name, or the only one.
fn port<'a>(ports: &'a [PortInfo], name: Option<&str>, what: &str) -> Result<&'a PortInfo> {
    let names = || ports.iter().map(|port| format!("`{}`", port.name)).collect::<Vec<_>>().join(", ");
    match (name, ports) {
        (Some(name), _) => ports
            .iter()
            .find(|port| port.name == name)
            .with_context(|| format!("the graph has no {what} `{name}`; it has {}", names())),
        (None, [port]) => Ok(port),
        (None, _) => bail!("the graph has {} {what}s, {}: say which, with --{what} NAME=FILE", ports.len(), names()),
    }
}

fn targets(options: &Run, graph: &TracedGraph) -> Result<Vec<(String, PathBuf)>> {
    let ports: Vec<_> = graph.outputs().collect();
    let mut targets: Vec<(String, PathBuf)> = Vec::new();
    for (name, path) in &options.output {
        let port = port(&ports, name.as_deref(), "output")?;
        ensure!(options.force || !path.exists(), "{} is there already; --force replaces it", path.display());
        ensure!(targets.iter().all(|(_, other)| other != path), "two outputs go to {}", path.display());
        targets.push((port.name.clone(), path.clone()));
    }
    Ok(targets)
}

/// Numbers in the type that the graph takes, if all of them are there in it: numpy's are of 64 bits if nothing is said.
fn fitting(data: TensorData, port: &PortInfo) -> Result<TensorData> {
    let (found, kind) = (data.dtype(), port.kind);
    let same = match kind {
        TensorKind::Int => found.is_int() || found.is_uint(),
        TensorKind::Float => found.is_float(),
        TensorKind::Bool => found.is_bool(),
    };
    ensure!(same, "the file holds {found:?}, and the graph takes {} [{}]", port.dtype, port.shape.join(", "));
    if kind == TensorKind::Int && found != port.element {
        let (least, most) = range(port.element);
        let beyond = data.iter::<i64>().map(i128::from).position(|number| number < least || number > most);
        ensure!(beyond.is_none(), "element {} is too large for {}", beyond.unwrap_or_default(), port.dtype);
    }
    Ok(data.convert_dtype(port.element))
}

/// The integers that a type has.
fn range(dtype: DType) -> (i128, i128) {
    let bits = dtype.size() * 8;
    match dtype.is_uint() {
        true => (0, (1 << bits) - 1),
        false => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
    }
}

fn figures(data: &TensorData) -> (f64, f64, f64) {
    let numbers = || data.iter::<f64>();
    let count = data.shape().num_elements().max(1) as f64;
    let least = numbers().fold(f64::INFINITY, f64::min);
    (least, numbers().sum::<f64>() / count, numbers().fold(f64::NEG_INFINITY, f64::max))
}
