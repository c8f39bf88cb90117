//! What a burnpack file says it holds. An arena is one too.

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
    // An arena names every tensor, where its container has those that are equal but once.
    let arena = match ArenaFile::open(&stamp.path) {
        Ok(arena) => {
            // The memory of an arena in use, `/proc/<pid>/fd/N`, need not have all of its weights.
            if let Some(beside) = arena.files().next() {
                let found = format!("the memory of an arena that borrows weights from {}", beside.display());
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
        // Without its manifest, tied and renamed tensors of an arena would quietly be missing.
        Err(error @ (ArenaError::ManifestChecksum { .. } | ArenaError::BadEntry { .. })) => {
            return Err(corrupted(error.to_string()));
        }
        Err(error @ ArenaError::Format { .. }) => return Err(error.into()),
        Err(error) => Err::<(), _>(error),
    };
    let head = head(file, stamp).map_err(|error| corrupted(error.to_string()))?;
    let head = Head::read(&head, stamp.len).map_err(|error| corrupted(error.to_string()))?;
    // Nor is an arena plain burnpack because its own reader does not believe it.
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

/// Whether a file looks like one of this format.
pub(super) fn is_one(start: &[u8]) -> bool {
    start.starts_with(&MAGIC_NUMBER.to_le_bytes())
}
