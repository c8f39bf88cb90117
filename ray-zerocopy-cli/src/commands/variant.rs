//! `rzc variant`: writes the difference of an arena from another one.

use std::fs;

use anyhow::{Result, bail};
use ray_zerocopy::arena::ArenaFile;
use serde_json::json;

use crate::Outcome;
use crate::cli::Variant;
use crate::files::remove_incomplete_on_signals;
use crate::output::Output;
use crate::progress::Bar;
use crate::table::{Table, count, size};
use crate::weights::{open_arena, open_bases};

/// What a variant stores, or borrows from one base.
struct Part {
    what: String,
    tensors: usize,
    bytes: u64,
}

pub(crate) fn run(options: &Variant, output: &mut Output) -> Result<Outcome> {
    let target = &options.output;
    // Symbolic links are not followed: a dangling one exists too, and would be replaced.
    if !options.force && fs::symlink_metadata(target).is_ok() {
        bail!("{} already exists; --force replaces it, and -o selects another file", target.display());
    }
    let bases = open_bases(&options.bases.files)?;
    let base = open_arena(&options.of, bases.as_ref())?;
    let tuned = open_arena(&options.tuned, bases.as_ref())?;
    remove_incomplete_on_signals()?;
    let bar = Bar::new(&format!("writing {}", target.display()));
    let variant = tuned.save_variant(&base, target, |progress| bar.show(progress));
    bar.done();
    let variant = variant?;
    if options.json {
        output.json(&report(options, &base, &tuned, &variant), false)?;
    } else {
        show(options, &base, &tuned, &variant, output)?;
    }
    Ok(Outcome::Success)
}

/// Returns what is stored, then what is borrowed from each base.
fn parts(variant: &ArenaFile) -> Vec<Part> {
    let of = |base| variant.tensors().filter(move |tensor| tensor.base == base);
    // Tied tensors are stored once, as the size of the file shows.
    let mut parts = vec![Part { what: "stored".to_owned(), tensors: of(None).count(), bytes: variant.size_bytes() }];
    let borrowed = variant.bases().map(|(id, bytes)| Part {
        what: format!("borrowed from {id}"),
        tensors: of(Some(id)).count(),
        bytes,
    });
    parts.extend(borrowed);
    parts
}

fn show(
    options: &Variant,
    base: &ArenaFile,
    tuned: &ArenaFile,
    variant: &ArenaFile,
    output: &mut Output,
) -> Result<()> {
    writeln!(
        output,
        "{}: a variant of {}, arena {}: id {}",
        options.output.display(),
        options.of.display(),
        base.id(),
        variant.id()
    )?;
    let mut table = Table::new(["", ">tensors", ">size"]);
    for part in parts(variant) {
        table.row([part.what, part.tensors.to_string(), size(part.bytes)]);
    }
    table.print("  ", output)?;
    if variant.bases().next().is_none() {
        writeln!(output, "the two have nothing in common: the file is whole, and needs no base")?;
    }
    let tensors = count(tuned.tensors().count(), "tensor");
    writeln!(output, "{} has {tensors}, {}", options.tuned.display(), size(tuned.size_bytes()))
}

fn report(options: &Variant, base: &ArenaFile, tuned: &ArenaFile, variant: &ArenaFile) -> serde_json::Value {
    let stored = variant.tensors().filter(|tensor| tensor.base.is_none());
    json!({
        "base": options.of,
        "input": options.tuned,
        "output": options.output,
        "base_id": base.id().to_hex(),
        "id": variant.id().to_hex(),
        "tensors": variant.tensors().count(),
        "stored": stored.map(|tensor| tensor.path).collect::<Vec<_>>(),
        "input_bytes": tuned.size_bytes(),
        "file_bytes": variant.size_bytes(),
        "bases": variant.bases().map(|(id, bytes)| json!({ "id": id.to_hex(), "bytes": bytes })).collect::<Vec<_>>(),
    })
}
