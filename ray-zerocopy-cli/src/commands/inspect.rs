//! `rzc inspect`: shows the contents of a file of weights.

use anyhow::Result;
use ray_zerocopy::jit::ScriptArgument;
use serde_json::json;

use super::SHOWN;
use crate::Outcome;
use crate::cli::Inspect;
use crate::compiled::Compiled;
use crate::output::Output;
use crate::pattern::Pattern;
use crate::table::{Table, count, size};
use crate::weights::{CopiedField, Tensor, Weights};

pub(crate) fn run(options: &Inspect, output: &mut Output) -> Result<Outcome> {
    let weights = Weights::open(&options.file, &options.source.options(), &options.bases.files)?;
    let pattern = options.tensors.as_deref().map(Pattern::new);
    let wanted = |path: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(path));
    let tensors: Vec<&Tensor> = weights.tensors.iter().filter(|tensor| wanted(&tensor.path)).collect();
    let copied: Vec<&CopiedField> = weights.copied.iter().filter(|field| wanted(&field.path)).collect();
    if options.json {
        output.json(&report(options, &weights, &tensors, &copied), false)?;
    } else {
        head(options, &weights, output)?;
        show(options, &weights, &tensors, output)?;
        fields(&copied, output)?;
        totals(&weights, output)?;
    }
    Ok(Outcome::Success)
}

fn head(options: &Inspect, weights: &Weights, output: &mut Output) -> Result<()> {
    writeln!(output, "{}: {}, {}", options.file.display(), weights.format.describe(), size(weights.bytes))?;
    if let Some(pipeline) = weights.pipeline() {
        writeln!(output, "pipeline     {pipeline}")?;
    }
    if let Some(arena) = &weights.arena {
        writeln!(output, "id           {}", arena.id())?;
        writeln!(output, "fingerprint  {}", arena.fingerprint().chars().take(12).collect::<String>())?;
        for (id, bytes) in arena.bases() {
            writeln!(output, "base         {id}, {} borrowed", size(bytes))?;
        }
    }
    if let Some(graph) = &weights.graph {
        writeln!(output, "graph        {}, {}", graph.origin(), count(graph.operations(), "operation"))?;
        for (what, ports) in [("input", graph.inputs().collect::<Vec<_>>()), ("output", graph.outputs().collect())] {
            for port in ports {
                writeln!(output, "{what:<12} {}: {} [{}]", port.name, port.dtype, port.shape.join(", "))?;
            }
        }
        if let Some(compiled) = Compiled::of(graph) {
            writeln!(output, "compiled     {}", compiled.describe())?;
        }
    }
    for method in weights.methods.iter().flatten() {
        let argument = |argument: &ScriptArgument| {
            let default = if argument.has_default { " = .." } else { "" };
            format!("{}: {}{default}", argument.name, argument.ty)
        };
        let arguments: Vec<_> = method.arguments.iter().map(argument).collect();
        writeln!(output, "method       {}({}) -> {}", method.name, arguments.join(", "), method.returns)?;
    }
    for file in weights.files.iter().filter(|_| weights.files.len() > 1) {
        writeln!(output, "file         {}", file.display())?;
    }
    Ok(())
}

fn show(options: &Inspect, weights: &Weights, tensors: &[&Tensor], output: &mut Output) -> Result<()> {
    writeln!(output)?;
    if tensors.is_empty() {
        return match &options.tensors {
            Some(pattern) => writeln!(output, "no tensor path matches `{pattern}`"),
            None => writeln!(output, "no tensors"),
        };
    }
    let shown = if options.all { tensors.len() } else { tensors.len().min(SHOWN) };
    let compiled = weights.graph.as_ref().and_then(Compiled::of);
    let packed = |path: &str| compiled.as_ref().and_then(|compiled| compiled.packed(path));
    let mut table = Table::new(["tensor", "type", "shape", ">size", ">aligned", ""]);
    for tensor in &tensors[..shown] {
        let note = match (tensor.same_as, tensor.dtype) {
            (Some(first), _) => format!("= {}", weights.tensors[first].path),
            (None, None) => "type not supported by burn".to_owned(),
            (None, Some(_)) if tensor.gathered.is_some() => "not contiguous".to_owned(),
            (None, Some(_)) if tensor.base.is_some() => "in the base".to_owned(),
            (None, Some(_)) => packed(&tensor.path).map(described).unwrap_or_default(),
        };
        table.row([
            tensor.path.clone(),
            tensor.dtype_name.clone(),
            format!("{:?}", tensor.shape),
            size(tensor.bytes),
            tensor.alignment().to_string(),
            note,
        ]);
    }
    table.print("", output)?;
    match tensors.len() - shown {
        0 => Ok(()),
        more => writeln!(output, "and {more} more: --all shows all of them, --tensors PATTERN those that match"),
    }
}

/// Describes the matrix that a packed tensor holds.
fn described([rows, columns]: [usize; 2]) -> String {
    format!("packed {rows} × {columns}")
}

fn fields(copied: &[&CopiedField], output: &mut Output) -> Result<()> {
    if copied.is_empty() {
        return Ok(());
    }
    writeln!(output)?;
    let mut table = Table::new(["copied field", ">size"]);
    for field in copied {
        table.row([field.path.clone(), size(field.bytes)]);
    }
    table.print("", output)
}

fn totals(weights: &Weights, output: &mut Output) -> Result<()> {
    writeln!(output)?;
    let mut table = Table::new(["all tensors", ">number", ">elements", ">size"]);
    let totals = weights.by_dtype();
    for (name, tensors, elements, bytes) in &totals {
        table.row([name.clone(), tensors.to_string(), elements.to_string(), size(*bytes)]);
    }
    table.rule();
    let elements: u64 = totals.iter().map(|(_, _, elements, _)| elements).sum();
    let number = weights.tensors.len().to_string();
    table.row(["sum".to_owned(), number, elements.to_string(), size(weights.weight_bytes())]);
    table.print("", output)?;
    let equal = weights.tensors.iter().filter(|tensor| tensor.same_as.is_some()).count();
    if equal > 0 {
        let (tensors, stored) = (count(equal, "tensor"), size(weights.stored_bytes()));
        writeln!(output, "stored: {stored}, since {tensors} (marked =) share the bytes of an equal one")?;
    }
    Ok(())
}

fn report(options: &Inspect, weights: &Weights, tensors: &[&Tensor], copied: &[&CopiedField]) -> serde_json::Value {
    let arena = weights.arena.as_ref();
    let compiled = weights.graph.as_ref().and_then(Compiled::of);
    let tensors = tensors.iter().map(|tensor| {
        json!({
            "path": tensor.path,
            "dtype": tensor.dtype_name,
            "shape": tensor.shape,
            "bytes": tensor.bytes,
            "file": tensor.file,
            "offset": tensor.offset,
            "alignment": tensor.alignment(),
            "contiguous": tensor.gathered.is_none(),
            "checksum": tensor.checksum,
            "packed": compiled.as_ref().and_then(|compiled| compiled.packed(&tensor.path)),
            "base": tensor.base.map(|id| id.to_hex()),
            "same_as": tensor.same_as.map(|first| &weights.tensors[first].path),
        })
    });
    let copied =
        copied.iter().map(|field| json!({ "path": field.path, "bytes": field.bytes, "checksum": field.checksum }));
    let by_dtype = weights.by_dtype().into_iter().map(|(dtype, tensors, elements, bytes)| {
        json!({ "dtype": dtype, "tensors": tensors, "elements": elements, "bytes": bytes })
    });
    json!({
        "file": options.file,
        "format": weights.format.name(),
        "files": weights.files,
        "file_bytes": weights.bytes,
        "pipeline": weights.pipeline(),
        "id": arena.map(|arena| arena.id().to_hex()),
        "fingerprint": arena.map(|arena| arena.fingerprint()),
        "bases": arena.map_or_else(Vec::new, |arena| {
            arena.bases().map(|(id, bytes)| json!({ "id": id.to_hex(), "bytes": bytes })).collect()
        }),
        "graph": weights.graph.as_ref().map(super::graph::summary),
        "methods": weights.methods,
        "tensors": tensors.collect::<Vec<_>>(),
        "copied_fields": copied.collect::<Vec<_>>(),
        "totals": {
            "tensors": weights.tensors.len(),
            "weight_bytes": weights.weight_bytes(),
            "stored_bytes": weights.stored_bytes(),
            "by_dtype": by_dtype.collect::<Vec<_>>(),
        },
    })
}
