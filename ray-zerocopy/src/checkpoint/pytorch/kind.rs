//! Classification of zip archives: PyTorch writes two kinds, and other programs write others.

use std::fs::File;
use std::path::Path;

use super::zip::{Archive, ZipError};

/// Content of a zip archive, judging by the names of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArchiveKind {
    /// Written by `torch.jit.save`: weights and code.
    TorchScript,
    /// Written by `torch.save`, in a folder of this name.
    StateDict { root: String },
    /// Something else, described for an error message.
    Other(String),
}

/// Classifies the archive at a path. Returns `None` if it is not a zip archive.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn kind(path: &Path) -> std::io::Result<Option<ArchiveKind>> {
    let file = File::open(path)?;
    let mut start = [0; 4];
    let len = file.metadata()?.len();
    if !file.metadata()?.is_file() || len < 4 {
        return Ok(None);
    }
    crate::arena::io::read_at(&file, &mut start, 0)?;
    if &start != b"PK\x03\x04" {
        return Ok(None);
    }
    match Archive::read(&file, len) {
        Ok(archive) => Ok(Some(of(&archive))),
        Err(ZipError::Read(error)) => Err(error),
        Err(ZipError::Cut(reason) | ZipError::Broken(reason)) => {
            Ok(Some(ArchiveKind::Other(format!("a zip file that is not whole: {reason}"))))
        }
    }
}

pub(super) fn of(archive: &Archive) -> ArchiveKind {
    let names = || archive.entries.iter().map(|entry| entry.name.as_str());
    let within = |name: &str, what: &str| name.split_once('/').is_some_and(|(_, rest)| rest.starts_with(what));
    // Both kinds have a `data.pkl`. Modules additionally have code, and the oldest ones a
    // `model.json` instead of the pickle.
    if names().any(|name| within(name, "code/") || name.ends_with("/constants.pkl") || within(name, "model.json")) {
        return ArchiveKind::TorchScript;
    }
    if let Some(root) = names().find_map(|name| name.strip_suffix("/data.pkl").filter(|root| !root.contains('/'))) {
        return ArchiveKind::StateDict { root: root.to_owned() };
    }
    let found = if archive.entries.is_empty() {
        "an empty zip archive".to_owned()
    } else if names().all(|name| name.ends_with(".npy")) {
        "numpy arrays (`.npz`); write them with `safetensors.numpy.save_file`".to_owned()
    } else if names().any(|name| name == "model.weights.h5") {
        "a Keras model; Keras's weights are not read".to_owned()
    } else if names().any(|name| name.ends_with("archive_format") || name.ends_with("models/model.json")) {
        "a program of `torch.export`; in Python save `program.state_dict`".to_owned()
    } else {
        let mut listed: Vec<_> = names().take(4).map(|name| format!("`{name}`")).collect();
        let more = archive.entries.len() - listed.len();
        if more > 0 {
            listed.push(format!("{more} more"));
        }
        format!("a zip archive of {}; unpack it first", listed.join(", "))
    };
    ArchiveKind::Other(found)
}
