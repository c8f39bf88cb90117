//! What no honest arena says: checked before anything believes it, in time and memory that grow with the table only.
//!
//! burnpack's reader lets a container be of an older version, carry bytes behind its table, and have tensors on top of
//! each other; and a manifest could name one blob a million times, so that reading a small file takes a day. All that
//! our own builder writes passes.

use std::collections::HashSet;

use burn::tensor::DType;
use burn_pack::{FORMAT_VERSION, HEADER_SIZE, Header};

use super::manifest::Blob;
use super::manifest::Manifest;
use crate::error::arena::ArenaError;
use crate::tensor::dtype;

/// A tensor of the container.
pub(super) struct Held {
    pub name: String,
    pub dtype: DType,
    pub offset: usize,
    pub len: usize,
}

/// Checks the frame: its version, and that it ends with the manifest, which is the last thing that is written into it.
pub(super) fn frame(memory: &[u8], manifest: &str) -> Result<(), ArenaError> {
    let header = Header::from_bytes(memory).map_err(|error| ArenaError::NotAnArena(error.to_string()))?;
    if header.version != FORMAT_VERSION {
        return Err(ArenaError::NotAnArena(format!(
            "it is a burnpack container of version {}, and this build reads {FORMAT_VERSION}",
            header.version
        )));
    }
    let end = HEADER_SIZE.saturating_add(header.metadata_size as usize);
    match memory.get(HEADER_SIZE..end).is_some_and(|head| head.ends_with(manifest.as_bytes())) {
        true => Ok(()),
        false => Err(ArenaError::NotAnArena("its head does not end with its manifest".to_owned())),
    }
}

/// Checks that no two tensors have a byte in common: each is read once, so the work is that of the arena's size.
pub(super) fn apart(held: &[Held]) -> Result<(), ArenaError> {
    let mut by_place: Vec<_> = held.iter().filter(|held| held.len > 0).collect();
    by_place.sort_unstable_by_key(|held| held.offset);
    match by_place.windows(2).find(|pair| pair[0].offset + pair[0].len > pair[1].offset) {
        Some(pair) => Err(bad(&pair[1].name, format!("its bytes are also those of `{}`", pair[0].name))),
        None => Ok(()),
    }
}

/// Checks that the manifest names each thing once, and agrees with the container on what its bytes are. `of_blob` says
/// which tensor of the container has the name of each blob, if any has.
pub(super) fn table(manifest: &Manifest, held: &[Held], of_blob: &[Option<usize>]) -> Result<(), ArenaError> {
    let same_tensor = "two blobs of the manifest are the same tensor of the container";
    let mut named = vec![false; held.len()];
    for (blob, index) in manifest.blobs.iter().zip(of_blob) {
        if let Some(named) = index.and_then(|index| named.get_mut(index))
            && std::mem::replace(named, true)
        {
            return Err(bad(&blob.name, same_tensor));
        }
    }
    let elsewhere = manifest.blobs.iter().zip(of_blob).filter(|(_, index)| index.is_none());
    once(elsewhere.map(|(blob, _)| blob.name.as_str()), same_tensor)?;
    // Only bytes in a file have no checksum, since nobody has read them. Sealed memory beside the container is no file.
    let in_file = |blob: &Blob| {
        blob.file.is_some_and(|place| manifest.files.get(place.file as usize).is_none_or(|stamp| !stamp.is_memory()))
    };
    if let Some(blob) = manifest.blobs.iter().find(|blob| in_file(blob) == blob.blake3.is_some()) {
        let reason = if in_file(blob) { "it is in a file, and has a checksum" } else { "it has no checksum" };
        return Err(bad(&blob.name, reason));
    }
    let twice = "two entries have this path";
    once(manifest.tensors.iter().map(|entry| entry.path.as_str()), twice)?;
    once(manifest.copies.iter().map(|entry| entry.path.as_str()), twice)?;
    once(manifest.flags.iter().map(|entry| entry.path.as_str()), twice)?;

    let same = |path: &str, blob: u32, dtype: DType| {
        let in_container = manifest.blobs.get(blob as usize).is_some_and(|blob| blob.file.is_none());
        let index = of_blob.get(blob as usize).copied().flatten().filter(|_| in_container);
        match index.and_then(|index| held.get(index)).map(|held| held.dtype) {
            Some(found) if found != dtype => Err(bad(
                path,
                format!("it is {} by the manifest, and {} by the container", dtype::name(dtype), dtype::name(found)),
            )),
            _ => Ok(()),
        }
    };
    manifest.tensors.iter().try_for_each(|entry| same(&entry.path, entry.blob, entry.dtype))?;
    manifest.copies.iter().try_for_each(|entry| same(&entry.path, entry.blob, DType::U8))?;

    // Tied tensors are one blob. A copied field never is, and each one costs its size when it is decoded.
    let mut taken = vec![false; manifest.blobs.len()];
    // A blob that is not there is found elsewhere.
    let mut take = |blob: u32| taken.get_mut(blob as usize).is_some_and(|taken| std::mem::replace(taken, true));
    manifest.tensors.iter().for_each(|entry| {
        take(entry.blob);
    });
    match manifest.copies.iter().find(|entry| take(entry.blob)) {
        Some(entry) => Err(bad(&entry.path, "its bytes are also those of another entry")),
        None => Ok(()),
    }
}

fn once<'a>(mut names: impl Iterator<Item = &'a str>, reason: &str) -> Result<(), ArenaError> {
    let mut seen = HashSet::with_capacity(names.size_hint().0);
    match names.find(|name| !seen.insert(*name)) {
        Some(name) => Err(bad(name, reason)),
        None => Ok(()),
    }
}

fn bad(entry: &str, reason: impl Into<String>) -> ArenaError {
    ArenaError::BadEntry { entry: entry.to_owned(), reason: reason.into() }
}
