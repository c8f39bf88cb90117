//! What a burnpack file says it holds. burn's own crate reads and checks the head. An arena is one too.

use std::fs::File;

use burn::tensor::{AllocationProperty, Bytes};
use burn_pack::{MAGIC_NUMBER, Reader};

use super::{CheckpointError, CheckpointFormat, Entry};
use crate::arena::file::image;
use crate::arena::{ArenaError, ArenaFile, MANIFEST_KEY, Stamp, dtypes};

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
    let (_, image) = image(file, stamp).map_err(|error| corrupted(error.to_string()))?;
    let base = image.as_ptr() as usize;
    let reader = Reader::from_bytes(Bytes::from_shared(image.clone(), AllocationProperty::File))
        .map_err(|error| corrupted(error.to_string()))?;
    // Nor is an arena plain burnpack because its own reader does not believe it.
    if let Err(error) = arena
        && reader.metadata().get(MANIFEST_KEY).is_some_and(|manifest| manifest.starts_with('{'))
    {
        return Err(corrupted(error.to_string()));
    }
    let tensors = reader.into_tensors().map_err(|error| corrupted(error.to_string()))?;
    let mut entries = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let (name, dtype, shape, param, bytes) = tensor.into_parts().map_err(|error| corrupted(error.to_string()))?;
        // A tensor without elements has no address of its own.
        let offset = if bytes.is_empty() { 0 } else { (bytes.as_ptr() as usize).wrapping_sub(base) as u64 };
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > stamp.len) {
            return Err(corrupted(format!("tensor `{name}` lies outside of the file")));
        }
        dtypes::fits(dtype, &shape, bytes.len()).map_err(|reason| corrupted(format!("tensor `{name}`: {reason}")))?;
        entries.push(Entry {
            renamed: name.clone(),
            name,
            dtype: Ok(dtype),
            shape: shape.to_vec(),
            file: number,
            offset,
            len: bytes.len() as u64,
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
