//! What a file of `torch.save` says it holds, read without Python and without running anything of it.
//!
//! The pickle in it names the tensors, their shapes and their storages; the storages stand in the file as they are in
//! memory. So a tensor is a place in the file, as in any other format.
//!
//! | file | what |
//! | --- | --- |
//! | `zip` | the table of contents of an archive, and what kind of archive it is |
//! | `legacy` | the files of PyTorch before 1.6 |
//! | `pickle/` | pickles, as data |
//! | `state` | which dictionary is the state dict |
//! | `tensor` | the calls that make a tensor, as shapes and places |

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

/// Tensors that overlap may claim so many times the bytes of the file: no more is ever read or written of it.
const MAX_OVERLAP: u64 = 4;
/// A tensor whose elements lie so far apart is refused: all between them is read too.
const MAX_SPREAD: u64 = 64;

/// Why a file of `torch.save` cannot be read.
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

/// A pickle that ends too early ends where the file does, or within its entry.
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

/// Whether a file looks like one of `torch.save`: an archive, or the pickles of old.
pub(super) fn is_one(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || legacy::is_one(start)
}

/// Reads what the file says of itself. `key` says where the state dict is.
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
        let refused = |reason: String| Failure::Unsupported(format!("tensor `{name}`: {reason}")).of(&path);
        let described = tensor::describe(&pickle, id).map_err(refused)?;
        let entry = placed(name.clone(), described, &storages, number).map_err(|failure| match failure {
            Failure::Broken(reason) => Failure::Broken(format!("tensor `{name}`: {reason}")).of(&path),
            Failure::Unsupported(reason) => Failure::Unsupported(format!("tensor `{name}`: {reason}")).of(&path),
            other => other.of(&path),
        })?;
        // Tensors of the same place are tied, and stored once.
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

/// The pickle and the storages of an archive.
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
        // Keys of other files are in the way of `..`: only what is in the archive is looked at.
        if let Some(entry) = archive.find(&format!("{root}/data/{key}")) {
            storages.insert(key.to_owned(), (entry.place(file, len)?, entry.size));
        }
    }
    Ok((pickle, storages))
}

/// A tensor as a place in the file.
fn placed(name: String, tensor: Described, storages: &Storages, file: usize) -> Result<Entry, Failure> {
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
    // What it spans, in elements.
    let wide = span(&shape, &strides).ok_or_else(beyond)?;
    if offset.checked_add(wide).is_none_or(|end| end > elements) {
        return Err(beyond());
    }
    if count > elements {
        return Err(Failure::Unsupported(format!(
            "it is expanded: its shape {shape:?} shows the {elements} elements of its storage more than once; save `tensor.contiguous()`"
        )));
    }
    if wide > count.saturating_mul(MAX_SPREAD).saturating_add(1 << 20) {
        return Err(Failure::Unsupported(format!(
            "its {count} elements are spread over {wide} of its storage; save `tensor.contiguous()`"
        )));
    }
    // All of it lies within the storage, so nothing overflows.
    let (offset, len) = (start + offset * size, count * size);
    let parts = if is_contiguous(&shape, &strides) {
        Vec::new()
    } else {
        vec![Part { file, offset, len, shape: shape.clone(), strides: Some(strides) }]
    };
    Ok(Entry { renamed: name.clone(), name, dtype, shape, file, offset, len, param: None, parts })
}
