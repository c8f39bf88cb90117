//! Tensors of burnpack files, including arenas.

use std::fs::File;

use burn_pack::MAGIC_NUMBER;

use super::CheckpointFormat;
use super::entry::Entry;
use crate::arena::file::ArenaFile;
use crate::arena::file::head;
use crate::arena::layout::{Described, Head};
use crate::arena::manifest::MANIFEST_KEY;
use crate::arena::region::Stamp;
use crate::error::arena::ArenaError;
use crate::error::checkpoint::CheckpointError;
use crate::tensor::dtype;

pub(super) fn entries(
    file: &File,
    stamp: &Stamp,
    number: usize,
) -> Result<(CheckpointFormat, Vec<Entry>), CheckpointError> {
    let corrupted = |reason: String| CheckpointError::corrupted(&stamp.path, reason);
    // An arena lists every tensor, while its container stores equal tensors only once.
    let arena = match ArenaFile::open(&stamp.path) {
        Ok(arena) => {
            // The memory of an arena in use, `/proc/<pid>/fd/N`, may not contain all of its
            // weights.
            let file = arena.files().next().map(|other| other.display().to_string());
            let base = || arena.bases().next().map(|(id, _)| format!("arena {id}"));
            if let Some(other) = file.or_else(base) {
                let found = format!("the memory of an arena that borrows weights from {other}");
                return Err(CheckpointError::Format { path: stamp.path.display().to_string(), found });
            }
            let entries = arena.stored().map(|(tensor, param, offset)| Entry {
                name: tensor.path.to_owned(),
                renamed: tensor.path.to_owned(),
                dtype: Ok(tensor.dtype),
                shape: tensor.shape.to_vec(),
                file: number,
                offset,
                len: tensor.bytes,
                param,
                parts: Vec::new(),
            });
            return Ok((CheckpointFormat::Arena, entries.collect()));
        }
        // Without the manifest, tied and renamed tensors of an arena would silently be missing.
        Err(error @ (ArenaError::ManifestChecksum { .. } | ArenaError::BadEntry { .. })) => {
            return Err(corrupted(error.to_string()));
        }
        Err(error @ (ArenaError::Format { .. } | ArenaError::NeedsBase { .. })) => return Err(error.into()),
        Err(error) => Err::<(), _>(error),
    };
    let head = head(file, stamp).map_err(|error| corrupted(error.to_string()))?;
    let head = Head::read(&head, stamp.len).map_err(|error| corrupted(error.to_string()))?;
    // An arena that its own parser rejects must not be read as plain burnpack either.
    if let Err(error) = arena
        && head.texts.get(MANIFEST_KEY).is_some_and(|manifest| manifest.starts_with('{'))
    {
        return Err(corrupted(error.to_string()));
    }
    let mut entries = Vec::with_capacity(head.tensors.len());
    for (name, Described { dtype, shape, param, offset, len }) in head.tensors {
        dtype::fits(dtype, &shape, len as usize).map_err(|reason| corrupted(format!("tensor `{name}`: {reason}")))?;
        entries.push(Entry {
            renamed: name.clone(),
            name,
            dtype: Ok(dtype),
            shape,
            file: number,
            offset,
            len,
            param,
            parts: Vec::new(),
        });
    }
    Ok((CheckpointFormat::Burnpack, entries))
}

/// Returns `true` if the file starts like a burnpack file.
pub(super) fn is_one(start: &[u8]) -> bool {
    start.starts_with(&MAGIC_NUMBER.to_le_bytes())
}
