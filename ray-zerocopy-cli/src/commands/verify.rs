//! `rzc verify`: verifies files against their checksums.

use std::path::Path;

use anyhow::Result;
use ray_zerocopy::error::{ArenaError, CheckpointError};
use serde_json::json;

use crate::Outcome;
use crate::cli::Verify;
use crate::output::{Output, one_line, print_error};
use crate::progress::Bar;
use crate::table::{count, size};
use crate::weights::Weights;

/// The result for one file.
struct Checked {
    result: &'static str,
    outcome: Outcome,
    /// The damaged entry, if it is known.
    entry: Option<String>,
    message: String,
    weights: Option<Weights>,
}

pub(crate) fn run(options: &Verify, output: &mut Output) -> Result<Outcome> {
    let mut outcome = Outcome::Success;
    let mut reports = Vec::new();
    for file in &options.files {
        let checked = check(file, options);
        outcome = outcome.max(checked.outcome);
        reports.push(report(file, &checked));
        if checked.outcome == Outcome::Failed {
            print_error(&checked.message);
        } else if !options.json {
            writeln!(output, "{}: {}: {}", file.display(), checked.result, one_line(&checked.message))?;
        }
    }
    if options.json {
        output.json(&json!({ "ok": outcome == Outcome::Success, "files": reports }), false)?;
    }
    Ok(outcome)
}

fn check(file: &Path, options: &Verify) -> Checked {
    let weights = match Weights::open(file, &options.source.options(), &options.bases.files) {
        Ok(weights) => weights,
        Err(error) => return failed(&error, None),
    };
    let tensors = count(weights.tensors.len(), "tensor");
    let Some(arena) = &weights.arena else {
        let message = format!(
            "the structure of {tensors}, {}, is valid; changed bytes would not be detected (`rzc pack` adds checksums)",
            size(weights.weight_bytes())
        );
        let (result, outcome) = ("no checksums", Outcome::Success);
        return Checked { result, outcome, entry: None, message, weights: Some(weights) };
    };
    let bar = Bar::new(&file.display().to_string());
    let verified = arena.verify(|progress| bar.show(progress));
    bar.done();
    if let Err(error) = verified {
        return failed(&error.into(), Some(weights));
    }
    let mut message = format!("{tensors}, {}", size(weights.stored_bytes()));
    if !weights.copied.is_empty() {
        message += &format!(" and {}", count(weights.copied.len(), "copied field"));
    }
    message += ", all checksums match";
    let borrowed = |is_here: bool| {
        weights.tensors.iter().filter(|tensor| tensor.base.is_some() && tensor.is_here == is_here).count()
    };
    if borrowed(true) > 0 {
        message += &format!(", with {} of the base", count(borrowed(true), "tensor"));
    }
    if borrowed(false) > 0 {
        message += &format!(", except {} of the base, which were not read", count(borrowed(false), "tensor"));
    }
    let without = weights.tensors.iter().filter(|tensor| tensor.checksum.is_none()).count();
    if without > 0 {
        message += &format!(", except {} in other files, which have none", count(without, "tensor"));
    }
    Checked { result: "ok", outcome: Outcome::Success, entry: None, message, weights: Some(weights) }
}

/// Classifies an error as damage or as a failure to read the file.
fn failed(error: &anyhow::Error, weights: Option<Weights>) -> Checked {
    let arena = error.chain().find_map(|cause| cause.downcast_ref::<ArenaError>());
    let entry = match arena {
        Some(ArenaError::BlobChecksum { entry, .. } | ArenaError::BadEntry { entry, .. }) => Some(entry.clone()),
        _ => None,
    };
    let checkpoint = error.chain().find_map(|cause| cause.downcast_ref::<CheckpointError>());
    let damaged = entry.is_some()
        || matches!(arena, Some(ArenaError::ManifestChecksum { .. }))
        || matches!(
            checkpoint,
            Some(CheckpointError::Corrupted { .. } | CheckpointError::Cut { .. } | CheckpointError::Index { .. })
        );
    let message = format!("{error:#}");
    if damaged {
        return Checked { result: "DAMAGED", outcome: Outcome::Mismatch, entry, message, weights };
    }
    Checked { result: "error", outcome: Outcome::Failed, entry, message, weights }
}

fn report(file: &Path, checked: &Checked) -> serde_json::Value {
    let weights = checked.weights.as_ref();
    let with = |weights: &Weights| weights.tensors.iter().filter(|tensor| tensor.checksum.is_some()).count();
    json!({
        "file": file,
        "result": checked.result.to_lowercase().replace(' ', "-"),
        "format": weights.map(|weights| weights.format.name()),
        "tensors": weights.map(|weights| weights.tensors.len()),
        "tensors_with_checksum": weights.map(with),
        "copied_fields": weights.map(|weights| weights.copied.len()),
        "bytes": weights.map(Weights::stored_bytes),
        "damaged_entry": checked.entry,
        "message": checked.message,
    })
}
