//! `rzc pack`: writes a checkpoint as one file that can be borrowed in place.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use burn::tensor::DType;
use ray_zerocopy::Checkpoint;
use serde_json::json;

use crate::Outcome;
use crate::cli::{Floats, Pack};
use crate::files::remove_incomplete_on_signals;
use crate::output::Output;
use crate::progress::Bar;
use crate::table::{Table, count, size};
use crate::weights::{Weights, readable};

pub(crate) fn run(options: &Pack, output: &mut Output) -> Result<Outcome> {
    readable(&options.input)?;
    let target = options.output.clone().unwrap_or_else(|| default_output(&options.input));
    // Symbolic links are not followed: a dangling one exists too, and would be replaced.
    if !options.force && fs::symlink_metadata(&target).is_ok() {
        bail!("{} already exists; --force replaces it, and -o selects another file", target.display());
    }
    let mut checkpoint = edited(options, options.source.options().open(&options.input)?)?;
    if let Some(floats) = options.floats {
        checkpoint = checkpoint.cast_floats(dtype(floats));
    }
    let renamed = checkpoint.tensors().filter(|tensor| tensor.name != tensor.renamed).count();
    remove_incomplete_on_signals()?;
    let bar = Bar::new(&format!("packing into {}", target.display()));
    let handle = bar.handle();
    let checkpoint = Arc::new(checkpoint.progress(move |progress| handle.show(progress)));
    let before = Weights::checkpoint(&checkpoint)?;
    let packed = checkpoint.pack(&target);
    bar.done();
    let id = packed?.id();
    let after = Weights::open(&target, &Checkpoint::options(), &[])?;

    if options.json {
        output.json(&report(options, &target, &before, &after, renamed, &id.to_hex()), false)?;
    } else {
        show(options, &target, &before, &after, renamed, output)?;
    }
    Ok(Outcome::Success)
}

/// Applies the options that change names and shapes, in the order that `--help` documents.
fn edited(options: &Pack, mut checkpoint: Checkpoint) -> Result<Checkpoint> {
    for (from, to) in &options.rename {
        checkpoint = checkpoint.rename(from, to)?;
    }
    for pattern in &options.transpose {
        checkpoint = checkpoint.transpose(pattern)?;
    }
    for (from, to) in &options.split {
        checkpoint = checkpoint.split(from, to.iter().map(String::as_str))?;
    }
    for (from, to) in &options.fuse {
        checkpoint = checkpoint.fuse(from.iter().map(String::as_str), to)?;
    }
    for (name, tensor) in &options.tie {
        checkpoint = checkpoint.tie(name, tensor)?;
    }
    Ok(checkpoint)
}

/// Returns the default output file of a checkpoint.
fn default_output(input: &Path) -> PathBuf {
    if input.is_dir() {
        return input.join("model.bpk");
    }
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_suffix(".index.json") {
        Some(stem) => input.with_file_name(stem).with_extension("bpk"),
        // `model.safetensors.index.fp16.json` is the index of a variant.
        None => match name.strip_suffix(".json").and_then(|name| name.rsplit_once(".index.")) {
            Some((stem, variant)) => input.with_file_name(stem).with_extension(format!("{variant}.bpk")),
            None => input.with_extension("bpk"),
        },
    }
}

fn dtype(floats: Floats) -> DType {
    match floats {
        Floats::F16 => DType::F16,
        Floats::Bf16 => DType::BF16,
        Floats::F32 => DType::F32,
    }
}

fn dtypes(weights: &Weights) -> Vec<String> {
    weights.by_dtype().into_iter().map(|(name, ..)| name).collect()
}

fn report(
    options: &Pack,
    target: &Path,
    before: &Weights,
    after: &Weights,
    renamed: usize,
    id: &str,
) -> serde_json::Value {
    json!({
        "input": options.input,
        "output": target,
        "id": id,
        "tensors": after.tensors.len(),
        "renamed": renamed,
        "weight_bytes": after.weight_bytes(),
        "stored_bytes": after.stored_bytes(),
        "before": side(before),
        "after": side(after),
    })
}

fn side(weights: &Weights) -> serde_json::Value {
    json!({
        "format": weights.format.name(),
        "files": weights.files.len(),
        "file_bytes": weights.bytes,
        "dtypes": dtypes(weights),
        "alignment": weights.alignment(),
    })
}

fn show(
    options: &Pack,
    target: &Path,
    before: &Weights,
    after: &Weights,
    renamed: usize,
    output: &mut Output,
) -> Result<()> {
    let tensors = count(after.tensors.len(), "tensor");
    writeln!(output, "packed {tensors} of {} into {}", options.input.display(), target.display())?;
    let mut table = Table::new(["", "before", "after"]);
    let mut row = |what: &str, of: &dyn Fn(&Weights) -> String| table.row([what.to_owned(), of(before), of(after)]);
    row("format", &|weights| weights.format.name().to_owned());
    row("size", &|weights| match weights.files.len() {
        1 => size(weights.bytes),
        files => format!("{} in {files} files", size(weights.bytes)),
    });
    row("types", &|weights| dtypes(weights).join(", "));
    row("aligned to", &|weights| weights.alignment().map_or_else(String::new, |bytes| format!("{bytes} bytes")));
    row("checksums", &|weights| if weights.arena.is_some() { "BLAKE3" } else { "none" }.to_owned());
    table.print("  ", output)?;
    let (stored, all) = (after.stored_bytes(), after.weight_bytes());
    if stored < all {
        let equal = after.tensors.iter().filter(|tensor| tensor.same_as.is_some()).count();
        writeln!(
            output,
            "{} stored once together with an equal one, which saves {}",
            are(equal, "tensor"),
            size(all - stored)
        )?;
    }
    if !options.rename.is_empty() {
        writeln!(output, "{} renamed", are(renamed, "tensor"))?;
    }
    Ok(())
}

fn are(number: usize, what: &str) -> String {
    format!("{} {}", count(number, what), if number == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::default_output;

    #[test]
    fn default_output_is_in_the_folder_of_the_input() {
        let of = |input: &str| default_output(Path::new(input)).display().to_string();
        assert_eq!(of("a/model.safetensors"), "a/model.bpk");
        assert_eq!(of("a/model.safetensors.index.json"), "a/model.bpk");
        assert_eq!(of("a/model.safetensors.index.fp16.json"), "a/model.fp16.bpk");
        assert_eq!(of("a/model.fp16.safetensors"), "a/model.fp16.bpk");
        assert_eq!(of("pytorch_model.bin"), "pytorch_model.bpk");
        assert_eq!(of("model"), "model.bpk");
        assert_eq!(of("."), "./model.bpk");
    }
}
