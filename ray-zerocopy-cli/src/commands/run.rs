//! `rzc run`: runs a traced graph or a TorchScript module on tensors from files.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::{DType, Device, TensorData};
use ray_zerocopy::arena::TensorKind;
use ray_zerocopy::jit::{Model, PortInfo, ScriptMethod, TracedGraph, Value, Values};
use serde_json::json;

use crate::Outcome;
use crate::cli::Run;
use crate::npy;
use crate::output::Output;
use crate::progress::Bar;
use crate::table::{Table, count};

pub(crate) fn run(options: &Run, output: &mut Output) -> Result<Outcome> {
    let opened = open_any(&options.graph)?;
    let (inputs, mut replay, what) = match &opened {
        Model::Graph(graph) => {
            ensure!(options.method.is_none(), "a graph has one method: --method is for TorchScript modules");
            let ports: Vec<_> = graph.info().outputs().map(|port| port.name).collect();
            check(&targets(options, &ports)?, options.force)?;
            (
                graph_inputs(&options.input, graph)?,
                graph.load(&options.device)?,
                count(graph.info().operations(), "operation"),
            )
        }
        Model::Script(script) => {
            let method = options.method.as_deref().unwrap_or("forward");
            // The outputs of a module are not known before it has run. Existing files are rejected
            // before that.
            check(
                &options.output.iter().map(|text| (String::new(), last_part(text))).collect::<Vec<_>>(),
                options.force,
            )?;
            let known = || script.methods().iter().map(|method| format!("`{}`", method.name)).collect::<Vec<_>>();
            let found = script.methods().iter().find(|known| known.name == method);
            let found =
                found.with_context(|| format!("there is no method `{method}`; there is {}", known().join(", ")))?;
            (script_inputs(options, found)?, script.load(&options.device)?, format!("`{method}`"))
        }
        _ => bail!("{}: its contents are not supported by this version of `rzc`", options.graph.display()),
    };
    let begun = Instant::now();
    let outputs = match &options.method {
        Some(method) => replay.call(method, inputs)?,
        None => replay.run(inputs)?,
    };
    let data = outputs.names().map(|name| Ok((name.to_owned(), outputs.data(name)?))).collect::<Result<Vec<_>>>()?;
    let took = begun.elapsed();
    // The outputs of a module are known only now.
    let names: Vec<_> = outputs.names().map(str::to_owned).collect();
    let targets = targets(options, &names)?;
    check(&targets, options.force)?;

    let mut table = Table::new(["output", "type", "shape", ">min", ">mean", ">max", "written to"]);
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
    if options.json {
        let report = json!({
            "graph": options.graph,
            "device": options.device,
            "milliseconds": took.as_secs_f64() * 1e3,
            "copied_bytes": replay.copied().iter().map(|copied| copied.bytes).sum::<u64>(),
            "outputs": reports,
        });
        output.json(&report, false)?;
    } else {
        table.print("", output)?;
        writeln!(output, "\n{what} in {took:.2?} on {}", options.device)?;
    }
    Ok(Outcome::Success)
}

/// Opens a graph with a progress bar.
pub(super) fn open(path: &PathBuf) -> Result<TracedGraph> {
    match open_any(path)? {
        Model::Graph(graph) => Ok(graph),
        _ => bail!(
            "{}: a TorchScript module has operations of LibTorch, which `print(torch.jit.load(FILE).graph)` shows",
            path.display()
        ),
    }
}

fn open_any(path: &PathBuf) -> Result<Model> {
    let bar = Bar::new(&path.display().to_string());
    let opened = ray_zerocopy::jit::open(path, |progress| bar.show(progress));
    bar.done();
    opened.with_context(|| path.display().to_string())
}

/// Reads the inputs of a graph: for each `[NAME=]FILE`.
pub(super) fn graph_inputs(given: &[String], graph: &TracedGraph) -> Result<Values> {
    let ports: Vec<_> = graph.info().inputs().collect();
    let names: Vec<_> = ports.iter().map(|port| port.name.clone()).collect();
    let mut inputs = Values::new();
    for text in given {
        let (name, file) = assigned(text, &names, "input")?;
        let Some(port) = ports.iter().find(|port| port.name == name) else { continue };
        let data = fitting(npy::read(&file)?, port).with_context(|| format!("input `{name}`"))?;
        insert(&mut inputs, &name, data)?;
    }
    Ok(inputs)
}

/// Reads the inputs of a module. For an argument that is a number, the number may be given instead
/// of a file.
fn script_inputs(options: &Run, method: &ScriptMethod) -> Result<Values> {
    let names: Vec<_> = method.arguments.iter().map(|argument| argument.name.clone()).collect();
    let mut inputs = Values::new();
    for text in &options.input {
        // Items of a list are named `state.0`.
        let part =
            text.split_once('=').filter(|(name, _)| names.iter().any(|own| name.starts_with(&format!("{own}."))));
        let (name, file) = match part {
            Some((name, file)) => (name.to_owned(), PathBuf::from(file)),
            None => assigned(text, &names, "input")?,
        };
        let kind = method.arguments.iter().find(|argument| argument.name == name).map(|argument| argument.ty.as_str());
        let data = match number(kind.unwrap_or_default(), &file.to_string_lossy()) {
            Some(number) => number,
            None => npy::read(&file)?,
        };
        insert(&mut inputs, &name, data)?;
    }
    Ok(inputs)
}

/// Parses a number for an argument of the TorchScript type `kind`.
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

/// Returns the outputs to be written, each with its file.
fn targets(options: &Run, names: &[String]) -> Result<Vec<(String, PathBuf)>> {
    options.output.iter().map(|text| assigned(text, names, "output")).collect()
}

/// Returns the file of `[NAME=]FILE`, without checking the name.
fn last_part(text: &str) -> PathBuf {
    text.split_once('=').map_or(text, |(_, file)| file).into()
}

/// Parses `[NAME=]FILE`. Names and files may contain a `=`: text before a `=` is a name if the
/// graph has it. Text with a `/` before the `=`, or that is an existing file, is a file.
fn assigned(text: &str, names: &[String], what: &str) -> Result<(String, PathBuf)> {
    let listed = || names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let file_of = |name: &String| text.strip_prefix(name.as_str())?.strip_prefix('=').filter(|file| !file.is_empty());
    let meant: Vec<_> = names.iter().filter_map(|name| Some((name, file_of(name)?))).collect();
    match &meant[..] {
        [(name, file)] => return Ok(((*name).clone(), file.into())),
        [] => {}
        [(first, file), (second, other), ..] => bail!(
            "`{text}` may be {what} `{first}` from `{file}` or {what} `{second}` from `{other}`; write a path with `./`, as in \
             `{first}=./{file}`"
        ),
    }
    let is_file = |name: &str| name.contains('/') || (what == "input" && Path::new(text).exists());
    match (text.split_once('='), names) {
        (Some((name, file)), _) if !is_file(name) => bail!(
            "the graph has no {what} `{name}`; it has {}; a file of that name is written `./{name}={file}`",
            listed()
        ),
        (_, [name]) => Ok((name.clone(), text.into())),
        _ => bail!("the graph has {} {what}s, {}: select one with --{what} NAME=FILE", names.len(), listed()),
    }
}

/// Checks that output files do not exist yet and differ from each other, before the graph is run.
fn check(targets: &[(String, PathBuf)], force: bool) -> Result<()> {
    for (at, (_, path)) in targets.iter().enumerate() {
        ensure!(force || !path.exists(), "{} already exists; --force replaces it", path.display());
        ensure!(
            targets[..at].iter().all(|(_, other)| other != path),
            "two outputs would be written to {}",
            path.display()
        );
    }
    Ok(())
}

/// Converts numbers to the type of a port, if it can represent all of them. Numpy's integers have
/// 64 bits by default.
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

/// Returns the range of an integer type.
fn range(dtype: DType) -> (i128, i128) {
    let bits = dtype.size() * 8;
    if dtype.is_uint() { (0, (1 << bits) - 1) } else { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) }
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

#[cfg(test)]
mod tests {
    use super::assigned;

    #[test]
    fn names_of_the_graph_are_not_files() {
        let of = |text: &str, names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            assigned(text, &names, "output").map(|(name, file)| (name, file.display().to_string()))
        };
        let is = |text, names: &[&str], name: &str, file: &str| {
            assert_eq!(of(text, names).unwrap(), (name.to_owned(), file.to_owned()), "{text}");
        };
        is("x=a.npy", &["x", "y"], "x", "a.npy");
        is("x=a=b.npy", &["x", "y"], "x", "a=b.npy");
        is("a=b=x.npy", &["a=b"], "a=b", "x.npy");
        is("./a=b.npy", &["x"], "x", "./a=b.npy");
        is("runs/lr=0.1/x.npy", &["x"], "x", "runs/lr=0.1/x.npy");
        is("a.npy", &["x"], "x", "a.npy");
        let error = |text, names: &[&str]| of(text, names).unwrap_err().to_string();
        assert!(
            error("z=a.npy", &["x"]).contains("no output `z`; it has `x`; a file of that name is written `./z=a.npy`")
        );
        assert!(error("a=b=x.npy", &["a", "a=b"]).contains("write a path with `./`, as in `a=./b=x.npy`"));
        assert!(error("a.npy", &["x", "y"]).contains("the graph has 2 outputs"));
    }
}
