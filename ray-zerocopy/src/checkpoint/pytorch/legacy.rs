//! Files written by `torch.save` before PyTorch 1.6: five pickles, followed by the storages.

use std::fs::File;

use super::pickle::opcodes::read;
use super::pickle::source::Source;
use super::pickle::value::{Pickle, Value};
use super::tensor::{Storages, element, storage_of};
use super::{Failure, unpickled};
use crate::arena::io::read_at;

/// The magic number 0x1950a86a20f9469cfc6c, as encoded in a pickle.
const MAGIC: [u8; 12] = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Returns `true` if a file starts with the magic number. Later pickle protocols put a frame before
/// it.
pub(super) fn is_one(start: &[u8]) -> bool {
    start.first() == Some(&0x80) && start.windows(MAGIC.len()).take(16).any(|window| window == MAGIC)
}

/// Reads the saved object, and the locations of its storages.
pub(super) fn open(file: &File, len: u64) -> Result<(Pickle, Storages), Failure> {
    let mut source = Source::new(file, 0, len);
    let mut next = || read(&mut source).map_err(|error| unpickled(error, len));
    // The magic number, the format version, and information on the machine that wrote the file.
    let (_, version, system) = (next()?, next()?, next()?);
    if version.number(version.root) != Some(1001) {
        return Err(Failure::Broken(format!("its format has the version {}", shown(&version))));
    }
    if let Value::Dict(pairs) = system.get(system.root)
        && pairs.iter().any(|&(key, value)| {
            system.text(key) == Some("little_endian") && matches!(system.get(value), Value::Bool(false))
        })
    {
        return Err(Failure::Unsupported(
            "its numbers are big-endian; save it again on a little-endian machine".to_owned(),
        ));
    }
    let (saved, keys) = (next()?, next()?);
    let storages = storage_locations(file, len, source.position(), &saved, &keys)?;
    Ok((saved, storages))
}

fn shown(pickle: &Pickle) -> String {
    pickle.number(pickle.root).map_or_else(|| pickle.describe(pickle.root), |number| number.to_string())
}

/// Reads the locations of the storages. Each storage is preceded by its number of elements; the
/// element size is only given in the pickle.
fn storage_locations(file: &File, len: u64, start: u64, saved: &Pickle, keys: &Pickle) -> Result<Storages, Failure> {
    let mut sizes = std::collections::HashMap::new();
    for value in &saved.values {
        if let Value::Persistent(named) = value
            && let Some((key, kind, _)) = storage_of(saved, *named)
        {
            sizes.insert(key, element(kind).1);
        }
    }
    let Some(keys_of) = keys.items(keys.root) else {
        return Err(Failure::Broken("its storages are not listed".to_owned()));
    };
    let mut storages = Storages::new();
    let mut at = start;
    for &key in keys_of {
        let Some((key, size)) = keys.text(key).and_then(|key| Some((key, *sizes.get(key)?))) else {
            return Err(Failure::Broken("it lists a storage of which nothing else is said".to_owned()));
        };
        let cut = |needed: u64| Failure::Cut(format!("its storages take {needed} bytes at least, and it has {len}"));
        let end = at + 8;
        if end > len {
            return Err(cut(end));
        }
        let mut elements = [0; 8];
        read_at(file, &mut elements, at).map_err(|error| Failure::Broken(error.to_string()))?;
        let bytes = u64::from_le_bytes(elements).checked_mul(size);
        let after = bytes.and_then(|bytes| Some((bytes, end.checked_add(bytes)?)));
        let Some((bytes, after)) = after else {
            return Err(Failure::Broken(format!("its storage `{key}` claims more bytes than there can be")));
        };
        if after > len {
            return Err(cut(after));
        }
        if storages.insert(key.to_owned(), (end, bytes)).is_some() {
            return Err(Failure::Broken(format!("it lists the storage `{key}` twice")));
        }
        at = after;
    }
    Ok(storages)
}
