//! Parser of `torch.save` files, without Python and without running any code in them.
//!
//! The pickle in the file describes the tensors, their shapes and their storages. The storages are
//! in the file with the same layout as in memory. So a tensor is a range of the file, as in any
//! other format.
//!
//! | file | what |
//! | --- | --- |
//! | `zip` | table of contents of a zip archive |
//! | `kind` | classification of archives |
//! | `legacy` | files written before PyTorch 1.6 |
//! | `pickle/` | pickles as data |
//! | `state` | finds the state dict |
//! | `tensor` | interprets the calls that build a tensor as shapes and locations |

pub(crate) mod kind;
pub(crate) mod legacy;
pub(crate) mod pickle;
pub(crate) mod state;
pub(crate) mod tensor;
pub(crate) mod zip;

use std::collections::HashSet;
use std::fs::File;

use self::kind::ArchiveKind;

use self::pickle::PickleError;
use self::pickle::source::Source;
use self::pickle::value::Pickle;
use self::tensor::{Described, Storages};
use self::zip::{Archive, ZipError};
use super::entry::Entry;
use super::entry::{Part, is_contiguous, span};
use crate::arena::region::Stamp;
use crate::error::checkpoint::CheckpointError;

/// Overlapping tensors may claim at most this multiple of the file's size, which bounds the bytes
/// that are read and written.
const MAX_OVERLAP: u64 = 4;
/// Maximum ratio of a tensor's span to its size. The gaps between elements are read as well.
const MAX_SPREAD: u64 = 64;

/// Why a `torch.save` file cannot be read.
#[derive(Debug)]
enum Failure {
    Cut(String),
    Broken(String),
    Unsafe(String),
    Unsupported(String),
    Other(CheckpointError),
}

impl Failure {
    fn of(self, path: &str) -> CheckpointError {
        let path = path.to_owned();
        match self {
            Self::Cut(reason) => CheckpointError::Cut { path, reason },
            Self::Broken(reason) => CheckpointError::Corrupted { path, reason },
            Self::Unsafe(what) => CheckpointError::Unsafe { path, what },
            Self::Unsupported(reason) => CheckpointError::Unsupported { path, reason },
            Self::Other(error) => error,
        }
    }
}

impl From<ZipError> for Failure {
    fn from(error: ZipError) -> Self {
        match error {
            ZipError::Cut(reason) => Self::Cut(reason),
            ZipError::Broken(reason) => Self::Broken(reason),
            ZipError::Read(error) => Self::Broken(error.to_string()),
        }
    }
}

/// Converts a pickle error. A pickle is truncated at the end of the file, or within its archive
/// entry.
fn unpickled(error: PickleError, len: u64) -> Failure {
    match error {
        PickleError::Unsafe(what) => Failure::Unsafe(what),
        PickleError::Ends(at) if at == len => Failure::Cut(format!("its pickle does not end within its {len} bytes")),
        PickleError::Ends(at) => {
            Failure::Broken(format!("its pickle does not end, and its part of the file does at byte {at}"))
        }
        PickleError::Broken(reason) => Failure::Broken(reason),
    }
}

/// Returns `true` if the file looks like a `torch.save` file: a zip archive, or the legacy format.
pub(super) fn is_one(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || legacy::is_one(start)
}

/// Reads the entries of a file. `key` selects the state dict.
pub(super) fn entries(
    file: &File,
    stamp: &Stamp,
    number: usize,
    start: &[u8],
    key: Option<&str>,
) -> Result<Vec<Entry>, CheckpointError> {
    let path = stamp.path.display().to_string();
    let opened = if legacy::is_one(start) { legacy::open(file, stamp.len) } else { archive(file, stamp.len, &path) };
    let (pickle, storages) = opened.map_err(|failure| failure.of(&path))?;
    let found = state::find(&pickle, &path, key)?;
    let mut entries = Vec::with_capacity(found.len());
    let (mut claimed, mut seen) = (0_u64, HashSet::new());
    for (name, id) in found {
        let unsupported = |reason: String| Failure::Unsupported(format!("tensor `{name}`: {reason}")).of(&path);
        let described = tensor::describe(&pickle, id).map_err(unsupported)?;
        let entry = resolve(name.clone(), described, &storages, number).map_err(|failure| match failure {
            Failure::Broken(reason) => Failure::Broken(format!("tensor `{name}`: {reason}")).of(&path),
            Failure::Unsupported(reason) => Failure::Unsupported(format!("tensor `{name}`: {reason}")).of(&path),
            other => other.of(&path),
        })?;
        // Tensors at the same location are tied, and stored once.
        if seen.insert((entry.offset, entry.len)) {
            claimed = claimed.saturating_add(entry.len);
        }
        entries.push(entry);
    }
    if claimed > stamp.len.saturating_mul(MAX_OVERLAP) {
        let reason = format!("its tensors claim {claimed} bytes, and the file has {}", stamp.len);
        return Err(CheckpointError::Corrupted { path, reason });
    }
    entries.sort_by(|left, right| (left.offset, &left.name).cmp(&(right.offset, &right.name)));
    Ok(entries)
}

/// Reads the pickle and the storages of an archive.
fn archive(file: &File, len: u64, path: &str) -> Result<(Pickle, Storages), Failure> {
    let archive = Archive::read(file, len)?;
    let root = match kind::of(&archive) {
        ArchiveKind::StateDict { root } => root,
        ArchiveKind::TorchScript => {
            let found =
                "a TorchScript module, which has code: `jit::TorchScript::open` and `rzc run` take it".to_owned();
            return Err(Failure::Other(CheckpointError::Foreign { path: path.to_owned(), found }));
        }
        ArchiveKind::Other(found) => {
            return Err(Failure::Other(CheckpointError::Foreign { path: path.to_owned(), found }));
        }
    };
    if let Some(order) = archive.find(&format!("{root}/byteorder")) {
        let mut text = vec![0; order.size.min(16) as usize];
        crate::arena::io::read_at(file, &mut text, order.place(file, len)?)
            .map_err(|error| Failure::Broken(error.to_string()))?;
        if text != b"little" {
            let order = String::from_utf8_lossy(&text).into_owned();
            return Err(Failure::Unsupported(format!(
                "its numbers are in the byte order `{order}`; save it again on a little-endian machine"
            )));
        }
    }
    let Some(entry) = archive.find(&format!("{root}/data.pkl")) else {
        return Err(Failure::Broken("it has no `data.pkl`".to_owned()));
    };
    let start = entry.place(file, len)?;
    let mut source = Source::new(file, start, start + entry.size);
    let pickle = pickle::read(&mut source).map_err(|error| unpickled(error, len))?;
    let mut storages = Storages::new();
    for value in &pickle.values {
        let pickle::Value::Persistent(named) = value else { continue };
        let Some((key, ..)) = tensor::storage_of(&pickle, *named) else { continue };
        if storages.contains_key(key) {
            continue;
        }
        // Only entries of the archive are looked up, so a key with `..` cannot reach other files.
        if let Some(entry) = archive.find(&format!("{root}/data/{key}")) {
            storages.insert(key.to_owned(), (entry.place(file, len)?, entry.size));
        }
    }
    Ok((pickle, storages))
}

/// Resolves a tensor to a location in the file.
fn resolve(name: String, tensor: Described, storages: &Storages, file: usize) -> Result<Entry, Failure> {
    let Described { key, dtype, size, elements, offset, shape, strides } = tensor;
    let Some(&(start, bytes)) = storages.get(&key) else {
        return Err(Failure::Broken(format!("its storage `{key}` is not in the file")));
    };
    if elements.checked_mul(size).is_none_or(|claimed| claimed > bytes) {
        return Err(Failure::Broken(format!("its storage `{key}` claims {elements} elements, and has {bytes} bytes")));
    }
    let beyond =
        || Failure::Broken(format!("shape {shape:?} does not fit the {elements} elements of its storage `{key}`"));
    let count = shape.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim as u64)).ok_or_else(beyond)?;
    // Number of elements that it spans.
    let span_len = span(&shape, &strides).ok_or_else(beyond)?;
    if offset.checked_add(span_len).is_none_or(|end| end > elements) {
        return Err(beyond());
    }
    if count > elements {
        return Err(Failure::Unsupported(format!(
            "it is expanded: its shape {shape:?} shows the {elements} elements of its storage more than once; save `tensor.contiguous()`"
        )));
    }
    if span_len > count.saturating_mul(MAX_SPREAD).saturating_add(1 << 20) {
        return Err(Failure::Unsupported(format!(
            "its {count} elements are spread over {span_len} of its storage; save `tensor.contiguous()`"
        )));
    }
    // The tensor lies within its storage, so this cannot overflow.
    let (offset, len) = (start + offset * size, count * size);
    let parts = if is_contiguous(&shape, &strides) {
        Vec::new()
    } else {
        vec![Part { file, offset, len, shape: shape.clone(), strides: Some(strides) }]
    };
    Ok(Entry { renamed: name.clone(), name, dtype, shape, file, offset, len, param: None, parts })
}
