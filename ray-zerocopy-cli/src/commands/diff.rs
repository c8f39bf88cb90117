//! `rzc diff`: compares the tensors of two files.

use std::collections::HashMap;

use anyhow::{Context, Result};
use ray_zerocopy::arena::Progress;
use serde_json::{Value, json};

use super::SHOWN;
use crate::Outcome;
use crate::cli::Diff;
use crate::compare::{Distance, Files};
use crate::output::Output;
use crate::progress::Bar;
use crate::table::{Table, count};
use crate::weights::{CopiedField, Tensor, Weights};

/// One difference between two files.
struct Difference<'a> {
    path: &'a str,
    what: What,
    left: Option<Side<'a>>,
    right: Option<Side<'a>>,
    distance: Option<Distance>,
}

/// A tensor or a copied field.
#[derive(Clone, Copy)]
enum Side<'a> {
    Tensor(&'a Tensor),
    Field(&'a CopiedField),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    OnlyInA,
    OnlyInB,
    Shape,
    Dtype,
    Content,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::OnlyInA => "only in A",
            Self::OnlyInB => "only in B",
            Self::Shape => "shape",
            Self::Dtype => "type",
            Self::Content => "content",
        }
    }
}

/// Numbers of tensors compared by checksum and by bytes.
#[derive(Default)]
struct Compared {
    by_checksum: usize,
    by_bytes: usize,
}

pub(crate) fn run(options: &Diff, output: &mut Output) -> Result<Outcome> {
    let open = |file| Weights::open(file, &options.source.options(), &options.bases.files);
    let left = open(&options.left).context("A")?;
    let right = open(&options.right).context("B")?;
    let (differences, compared) = compare(&left, &right, options.values)?;
    let pipelines = left.pipeline().zip(right.pipeline()).filter(|(left, right)| left != right);
    let equal = differences.is_empty() && pipelines.is_none();
    if options.json {
        let value = json!({
            "equal": equal,
            "a": options.left,
            "b": options.right,
            "pipelines_differ": pipelines.is_some(),
            "compared_by_checksum": compared.by_checksum,
            "compared_by_bytes": compared.by_bytes,
            "differences": differences.iter().map(report).collect::<Vec<_>>(),
        });
        output.json(&value, false)?;
    } else {
        if let Some((left, right)) = pipelines {
            writeln!(output, "pipeline: {left} in A, {right} in B")?;
        }
        show(options, &differences, output)?;
        let of = format!("{} in A, {} in B", count(left.tensors.len(), "tensor"), right.tensors.len());
        let how = format!("compared: {} by checksum, {} byte by byte", compared.by_checksum, compared.by_bytes);
        let result = if equal { "equal".to_owned() } else { count(differences.len(), "difference") };
        writeln!(output, "{result}; {of}; {how}")?;
    }
    Ok(if equal { Outcome::Success } else { Outcome::Mismatch })
}

fn compare<'a>(left: &'a Weights, right: &'a Weights, values: bool) -> Result<(Vec<Difference<'a>>, Compared)> {
    let mut unmatched: HashMap<&str, &Tensor> =
        right.tensors.iter().map(|tensor| (tensor.path.as_str(), tensor)).collect();
    let mut differences = Vec::new();
    let mut pairs = Vec::new();
    for tensor in &left.tensors {
        match unmatched.remove(tensor.path.as_str()) {
            Some(other) => pairs.push((tensor, other)),
            None => differences.push(Difference::alone(What::OnlyInA, &tensor.path, Side::Tensor(tensor))),
        }
    }
    let alone = right.tensors.iter().filter(|tensor| unmatched.contains_key(tensor.path.as_str()));
    differences.extend(alone.map(|tensor| Difference::alone(What::OnlyInB, &tensor.path, Side::Tensor(tensor))));
    let (differing, compared) = contents(&pairs, values)?;
    differences.extend(differing);
    differences.extend(fields(left, right));
    Ok((differences, compared))
}

/// Compares the tensors that both files have.
fn contents<'a>(pairs: &[(&'a Tensor, &'a Tensor)], values: bool) -> Result<(Vec<Difference<'a>>, Compared)> {
    let (mut differences, mut compared, mut files) = (Vec::new(), Compared::default(), Files::default());
    let bar = Bar::new("comparing");
    let mut progress = Progress::default();
    progress.total = pairs.iter().filter(|(left, right)| how(left, right) == How::Bytes).map(|(a, _)| a.bytes).sum();
    for &(left, right) in pairs {
        let mut read = |bytes: u64| {
            progress.done += bytes;
            progress.total = progress.total.max(progress.done);
            bar.show(progress);
        };
        let what = match how(left, right) {
            How::Shape => Some(What::Shape),
            How::Dtype => Some(What::Dtype),
            How::Checksum(equal) => {
                compared.by_checksum += 1;
                (!equal).then_some(What::Content)
            }
            How::Bytes => {
                compared.by_bytes += 1;
                (!files.equal(left, right, &mut read)?).then_some(What::Content)
            }
        };
        let Some(what) = what else { continue };
        let floats = [left, right].iter().all(|tensor| tensor.dtype.is_some_and(|dtype| dtype.is_float()));
        let compare_values = values && floats && what != What::Shape;
        let distance = if compare_values { Some(files.distance(left, right, &mut read)?) } else { None };
        let sides = (Some(Side::Tensor(left)), Some(Side::Tensor(right)));
        differences.push(Difference { path: &left.path, what, left: sides.0, right: sides.1, distance });
    }
    bar.done();
    Ok((differences, compared))
}

/// How two tensors are compared, or the difference that the metadata shows.
#[derive(PartialEq, Eq)]
enum How {
    Shape,
    Dtype,
    Checksum(bool),
    Bytes,
}

fn how(left: &Tensor, right: &Tensor) -> How {
    if left.shape != right.shape {
        return How::Shape;
    }
    // Quantised types of one name may be packed in several ways.
    if (left.dtype, &left.dtype_name, left.bytes) != (right.dtype, &right.dtype_name, right.bytes) {
        return How::Dtype;
    }
    match (&left.checksum, &right.checksum) {
        (Some(left), Some(right)) => How::Checksum(left == right),
        _ => How::Bytes,
    }
}

/// Compares copied fields, if both files are arenas of a pipeline: checkpoints do not have any.
fn fields<'a>(left: &'a Weights, right: &'a Weights) -> Vec<Difference<'a>> {
    let mut differences = Vec::new();
    if left.pipeline().is_none() || right.pipeline().is_none() {
        return differences;
    }
    let find = |fields: &'a [CopiedField], path: &str| fields.iter().find(|field| field.path == path);
    for field in &left.copied {
        match find(&right.copied, &field.path) {
            None => differences.push(Difference::alone(What::OnlyInA, &field.path, Side::Field(field))),
            Some(other) if other.checksum != field.checksum => differences.push(Difference {
                path: &field.path,
                what: What::Content,
                left: Some(Side::Field(field)),
                right: Some(Side::Field(other)),
                distance: None,
            }),
            Some(_) => {}
        }
    }
    let alone = right.copied.iter().filter(|field| find(&left.copied, &field.path).is_none());
    differences.extend(alone.map(|field| Difference::alone(What::OnlyInB, &field.path, Side::Field(field))));
    differences
}

impl<'a> Difference<'a> {
    fn alone(what: What, path: &'a str, side: Side<'a>) -> Self {
        let (left, right) = if what == What::OnlyInA { (Some(side), None) } else { (None, Some(side)) };
        Self { path, what, left, right, distance: None }
    }
}

fn show(options: &Diff, differences: &[Difference<'_>], output: &mut Output) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let side = |side: Option<Side<'_>>| match side {
        Some(Side::Tensor(tensor)) => format!("{} {:?}", tensor.dtype_name, tensor.shape),
        Some(Side::Field(field)) => format!("copied, {} bytes", field.bytes),
        None => String::new(),
    };
    let shown = if options.all { differences.len() } else { differences.len().min(SHOWN) };
    if options.values {
        let mut table = Table::new(["path", "differs", "A", "B", ">max diff", ">values"]);
        for it in &differences[..shown] {
            let (max, values) =
                it.distance.map(|found| (format!("{:.3e}", found.max), found.values.to_string())).unzip();
            let [max, values] = [max, values].map(Option::unwrap_or_default);
            table.row([it.path.to_owned(), it.what.name().to_owned(), side(it.left), side(it.right), max, values]);
        }
        table.print("", output)?;
    } else {
        let mut table = Table::new(["path", "differs", "A", "B"]);
        for it in &differences[..shown] {
            table.row([it.path.to_owned(), it.what.name().to_owned(), side(it.left), side(it.right)]);
        }
        table.print("", output)?;
    }
    match differences.len() - shown {
        0 => Ok(()),
        more => writeln!(output, "and {more} more: --all shows all of them"),
    }
}

fn report(difference: &Difference<'_>) -> Value {
    let side = |side: Option<Side<'_>>| match side {
        Some(Side::Tensor(tensor)) => {
            json!({ "dtype": tensor.dtype_name, "shape": tensor.shape, "bytes": tensor.bytes, "checksum": tensor.checksum })
        }
        Some(Side::Field(field)) => {
            json!({ "dtype": null, "shape": null, "bytes": field.bytes, "checksum": field.checksum })
        }
        None => Value::Null,
    };
    let field = [difference.left, difference.right].iter().flatten().any(|side| matches!(side, Side::Field(_)));
    json!({
        "path": difference.path,
        "kind": if field { "copied_field" } else { "tensor" },
        "what": match difference.what {
            What::OnlyInA => "only_in_a",
            What::OnlyInB => "only_in_b",
            What::Shape => "shape",
            What::Dtype => "dtype",
            What::Content => "content",
        },
        "a": side(difference.left),
        "b": side(difference.right),
        // JSON cannot represent NaN: it becomes null, with a nonzero number of differing values.
        "max_abs_difference": difference.distance.map(|distance| distance.max),
        "differing_values": difference.distance.map(|distance| distance.values),
    })
}
