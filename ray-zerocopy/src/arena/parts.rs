//! Arenas of named parts: tensors and values of an object that is not a Rust pipeline, such as a Python object.

use std::sync::Arc;

use burn::tensor::DType;

use super::arena::Arena;
use super::builder::ArenaBuilder;
use super::manifest::{ArenaId, HexId, TensorEntry};
use crate::error::arena::ArenaError;
use crate::tensor::dtype::fits;
use crate::tensor::kind::TensorKind;
use crate::tensor::source::Shared;

/// A tensor to be stored.
pub struct Part {
    /// Its path in the object.
    pub path: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its bytes, contiguous.
    pub bytes: bytes::Bytes,
}

/// A tensor of an arena, and where its bytes are in the container.
pub struct PlacedPart<'a> {
    /// Its path in the object.
    pub path: &'a str,
    /// Where its bytes begin. Parts with the same bytes may have the same offset.
    pub offset: usize,
    /// How many bytes it has.
    pub bytes: usize,
}

/// Creates an arena of tensors and values. Equal tensors of at least `apart_below` bytes are stored once.
///
/// # Errors
/// If the bytes of a tensor do not fit its dtype and shape, or the kernel refuses the memory.
pub fn arena_of_parts(
    origin: &str,
    parts: Vec<Part>,
    values: Vec<(String, Vec<u8>)>,
    apart_below: usize,
) -> Result<Arena, ArenaError> {
    builder(origin, parts, values, apart_below)?.seal(&mut |_| ())
}

/// Returns the container of the arena that [`arena_of_parts`] would create, in pieces. Large tensors stay where they are.
///
/// # Errors
/// If the bytes of a tensor do not fit its dtype and shape.
pub fn pieces_of_parts(
    origin: &str,
    parts: Vec<Part>,
    values: Vec<(String, Vec<u8>)>,
    apart_below: usize,
) -> Result<Vec<bytes::Bytes>, ArenaError> {
    builder(origin, parts, values, apart_below)?.pieces()
}

fn builder(
    origin: &str,
    parts: Vec<Part>,
    values: Vec<(String, Vec<u8>)>,
    apart_below: usize,
) -> Result<ArenaBuilder, ArenaError> {
    let mut builder = ArenaBuilder::new(origin).apart_below(apart_below);
    for Part { path, dtype, shape, bytes } in parts {
        fits(dtype, &shape, bytes.len()).map_err(|reason| ArenaError::Write { entry: path.clone(), reason })?;
        let entry = TensorEntry { path, blob: 0, kind: TensorKind::of(dtype), dtype, shape, param: None, why: None };
        builder.tensor(entry, Arc::new(Shared(bytes)))?;
    }
    for (path, value) in values {
        builder.copy(&path, value);
    }
    Ok(builder)
}

/// Returns the tensors of an arena, in the order in which they were stored.
///
/// # Errors
/// If a tensor is not in the arena's own container.
pub fn placed_parts(arena: &Arena) -> Result<Vec<PlacedPart<'_>>, ArenaError> {
    let mut parts = Vec::new();
    for TensorEntry { path, blob, .. } in &arena.manifest().tensors {
        let place = arena.places()[*blob as usize];
        if place.region != 0 {
            return Err(ArenaError::NotAnArena(format!("`{path}` is borrowed from elsewhere, and not in it")));
        }
        parts.push(PlacedPart { path, offset: place.offset, bytes: place.len });
    }
    Ok(parts)
}

/// Returns the value at a path. Compares it with its checksum.
///
/// # Errors
/// If there is none, or it is corrupted.
pub fn value(arena: &Arena, path: &str) -> Result<bytes::Bytes, ArenaError> {
    let manifest = arena.manifest();
    let entry = manifest.copies.iter().find(|entry| entry.path == path).ok_or_else(|| {
        ArenaError::NotAnArena(format!(
            "it has no `{path}`: it is of `{}`, and not of a Python object",
            arena.pipeline()
        ))
    })?;
    let bytes = arena.slice(entry.blob);
    let blob = &manifest.blobs[entry.blob as usize];
    if let Some(expected) = &blob.blake3 {
        blob.check(expected, blake3::hash(&bytes))?;
    }
    Ok(bytes)
}

/// The address of an arena's container in this process.
pub fn address(arena: &Arena) -> usize {
    arena.whole().as_ptr() as usize
}

/// Parses an id of 64 hexadecimal digits.
pub fn parse_id(hex: &str) -> Option<ArenaId> {
    use serde::Deserialize as _;
    use serde::de::value::{Error, StrDeserializer};

    HexId::deserialize(StrDeserializer::<Error>::new(hex)).ok().map(|id| id.0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::{Part, arena_of_parts, parse_id, placed_parts, value};

    fn part(path: &str, bytes: Vec<u8>) -> Part {
        Part { path: path.to_owned(), dtype: DType::U8, shape: vec![bytes.len()], bytes: bytes.into() }
    }

    #[test]
    fn equal_parts_are_stored_once_if_they_are_large() {
        let parts = || vec![part("a", vec![1; 100]), part("b", vec![1; 100]), part("c", vec![2; 100])];
        let offsets = |apart_below| {
            let arena = arena_of_parts("test", parts(), vec![("x".to_owned(), vec![7])], apart_below).unwrap();
            arena.verify().unwrap();
            assert_eq!(&value(&arena, "x").unwrap()[..], [7]);
            assert!(value(&arena, "y").unwrap_err().to_string().contains("it has no `y`"));
            assert_eq!(parse_id(&arena.id().to_hex()), Some(arena.id()));
            placed_parts(&arena).unwrap().iter().map(|part| part.offset).collect::<Vec<_>>()
        };
        let once = offsets(100);
        assert_eq!(once[0], once[1]);
        assert_ne!(once[0], once[2]);
        let apart = offsets(101);
        assert_ne!(apart[0], apart[1]);
        assert_eq!(parse_id("12"), None);
    }

    #[test]
    fn part_of_the_wrong_size_is_named() {
        let wrong = Part { dtype: DType::F32, ..part("a.weight", vec![1; 7]) };
        let error = arena_of_parts("test", vec![wrong], Vec::new(), 0).unwrap_err().to_string();
        assert!(error.contains("a.weight") && error.contains("7 bytes"), "{error}");
    }
}
