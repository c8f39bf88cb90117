//! `rzc run`: a traced graph or a TorchScript module, on tensors from files.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, Device, TensorData};
use ray_zerocopy::TensorKind;
use ray_zerocopy::jit::{Opened, PortInfo, ScriptMethod, TracedGraph, Value, Values};
use serde_json::json;

use crate::Outcome;
use crate::cli::Run;
use crate::npy;
use crate::output::Output;
use crate::progress::Bar;
use crate::table::{Table, count};

pub(crate) fn run(options: &Run, output: &mut Output) -> Result<Outcome> {
    check(&options.output, options.force)?;
    let opened = open_any(&options.graph)?;
    let (inputs, mut replay, what) = match &opened {
        Opened::Graph(graph) => {
            ensure!(options.method.is_none(), "a graph has one method: --method is for TorchScript modules");
            let ports: Vec<_> = graph.outputs().map(|port| port.name).collect();
            options.output.iter().try_for_each(|(name, _)| chosen(&ports, name.as_deref(), "output").map(drop))?;
            (graph_inputs(options, graph)?, graph.load(&options.device)?, count(graph.operations(), "operation"))
        }
        Opened::Script(script) => {
            let method = options.method.as_deref().unwrap_or("forward");
            let known = || script.methods().iter().map(|method| format!("`{}`", method.name)).collect::<Vec<_>>();
            let found = script.methods().iter().find(|known| known.name == method);
            let found =
                found.with_context(|| format!("there is no method `{method}`; there is {}", known().join(", ")))?;
            (script_inputs(options, found)?, script.load(&options.device)?, format!("`{method}`"))
        }
        _ => bail!("{}: this `rzc` does not know what it holds", options.graph.display()),
    };
    let begun = Instant::now();
    let outputs = match &options.method {
        Some(method) => replay.call(method, inputs)?,
        None => replay.run(inputs)?,
    };
    let data = outputs.names().map(|name| Ok((name.to_owned(), outputs.data(name)?))).collect::<Result<Vec<_>>>()?;
    let took = begun.elapsed();
    // What a module gives, only it knows.
    let names: Vec<_> = outputs.names().map(str::to_owned).collect();
    let target =
        |(name, path): &(Option<String>, PathBuf)| Ok((chosen(&names, name.as_deref(), "output")?, path.clone()));
    let targets = options.output.iter().map(target).collect::<Result<Vec<_>>>()?;

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
            writeln!(output, "\n{what} in {took:.2?} on {}", options.device)?;
        }
    }
    Ok(Outcome::Well)
}

/// Opens a graph, and shows how far that is.
pub(super) fn open(path: &PathBuf) -> Result<TracedGraph> {
    match open_any(path)? {
        Opened::Graph(graph) => Ok(graph),
        _ => bail!(
            "{}: a TorchScript module has operations of LibTorch, which `print(torch.jit.load(FILE).graph)` shows",
            path.display()
        ),
    }
}

fn open_any(path: &PathBuf) -> Result<Opened> {
    let bar = Bar::new(&path.display().to_string());
    let opened = ray_zerocopy::jit::open(path, |progress| bar.show(progress));
    bar.done();
    opened.with_context(|| path.display().to_string())
}

fn graph_inputs(options: &Run, graph: &TracedGraph) -> Result<Values> {
    let ports: Vec<_> = graph.inputs().collect();
    let names: Vec<_> = ports.iter().map(|port| port.name.clone()).collect();
    let mut inputs = Values::new();
    for (name, file) in &options.input {
        let name = chosen(&names, name.as_deref(), "input")?;
        let Some(port) = ports.iter().find(|port| port.name == name) else { continue };
        let data = fitting(npy::read(file)?, port).with_context(|| format!("input `{name}`"))?;
        insert(&mut inputs, &name, data)?;
    }
    Ok(inputs)
}

/// Inputs of a module: a number may be written where a file is expected, if the module takes a number there.
fn script_inputs(options: &Run, method: &ScriptMethod) -> Result<Values> {
    let names: Vec<_> = method.arguments.iter().map(|argument| argument.name.clone()).collect();
    let mut inputs = Values::new();
    for (name, file) in &options.input {
        // A list has parts, `state.0`.
        let name = match name {
            Some(name) if names.iter().any(|own| name.starts_with(&format!("{own}."))) => name.clone(),
            name => chosen(&names, name.as_deref(), "input")?,
        };
        let kind =
            method.arguments.iter().find(|argument| argument.name == name).map(|argument| argument.kind.as_str());
        let data = match number(kind.unwrap_or_default(), &file.to_string_lossy()) {
            Some(number) => number,
            None => npy::read(file)?,
        };
        insert(&mut inputs, &name, data)?;
    }
    Ok(inputs)
}

/// A number of a kind that TorchScript has, if that is what the text is.
fn number(kind: &str, text: &str) -> Option<TensorData> {
    let kind = kind.strip_prefix("Optional[").and_then(|kind| kind.strip_suffix(']')).unwrap_or(kind);
    match kind {
        "int" => text.parse::<i64>().ok().map(|number| TensorData::new(vec![number], [1])),
        "bool" => text.parse::<bool>().ok().map(|number| TensorData::new(vec![number], [1])),
        "float" | "number" => text.parse::<f64>().ok().map(|number| TensorData::new(vec![number], [1])),
        _ => None,
    }
}

fn insert(inputs: &mut Values, name: &str, data: TensorData) -> Result<()> {
    let value = Value::from_data(data, &Device::flex()).map_err(anyhow::Error::msg);
    inputs.insert(name, value.with_context(|| format!("input `{name}`"))?);
    Ok(())
}

/// The input or output of a name, or the only one.
fn chosen(names: &[String], name: Option<&str>, what: &str) -> Result<String> {
    let listed = || names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match (name, names) {
        (Some(name), _) if names.iter().any(|own| own == name) => Ok(name.to_owned()),
        (Some(name), _) => bail!("the graph has no {what} `{name}`; it has {}", listed()),
        (None, [name]) => Ok(name.clone()),
        (None, _) => bail!("the graph has {} {what}s, {}: say which, with --{what} NAME=FILE", names.len(), listed()),
    }
}

/// Nothing is run for outputs that have no place to go to.
fn check(targets: &[(Option<String>, PathBuf)], force: bool) -> Result<()> {
    for (at, (_, path)) in targets.iter().enumerate() {
        ensure!(force || !path.exists(), "{} is there already; --force replaces it", path.display());
        ensure!(targets[..at].iter().all(|(_, other)| other != path), "two outputs go to {}", path.display());
    }
    Ok(())
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
    if data.shape().num_elements() == 0 {
        return (f64::NAN, f64::NAN, f64::NAN);
    }
    let least = numbers().fold(f64::INFINITY, f64::min);
    (least, numbers().sum::<f64>() / count, numbers().fold(f64::NEG_INFINITY, f64::max))
}
