//! Structural validation of untrusted containers. Runs in time and memory proportional to the size
//! of the table of contents, before any tensor is read.
//!
//! burnpack's reader accepts containers of an older version, bytes after the table, and overlapping
//! tensors. A manifest could also name one blob a million times, so that reading a small file takes
//! a day. All of these are rejected here. Every arena that `ArenaBuilder` writes is accepted.

use std::collections::HashSet;

use burn::tensor::DType;
use burn_pack::{FORMAT_VERSION, HEADER_SIZE, Header};

use super::manifest::{BaseBlob, Blob, Manifest};
use crate::error::arena::ArenaError;
use crate::tensor::dtype;

/// A tensor of the container.
pub(super) struct Held {
    pub name: String,
    pub dtype: DType,
    pub offset: usize,
    pub len: usize,
}

/// Checks the version of the container, and that its head ends with the manifest, as the builder
/// writes it.
pub(super) fn frame(memory: &[u8], manifest: &str) -> Result<(), ArenaError> {
    let header = Header::from_bytes(memory).map_err(|error| ArenaError::NotAnArena(error.to_string()))?;
    if header.version != FORMAT_VERSION {
        return Err(ArenaError::NotAnArena(format!(
            "it is a burnpack container of version {}, and this build reads {FORMAT_VERSION}",
            header.version
        )));
    }
    let end = HEADER_SIZE.saturating_add(header.metadata_size as usize);
    if memory.get(HEADER_SIZE..end).is_some_and(|head| head.ends_with(manifest.as_bytes())) {
        Ok(())
    } else {
        Err(ArenaError::NotAnArena("its head does not end with its manifest".to_owned()))
    }
}

/// Checks that tensors do not overlap. So reading all tensors is bounded by the arena's size.
pub(super) fn apart(held: &[Held]) -> Result<(), ArenaError> {
    let mut by_place: Vec<_> = held.iter().filter(|held| held.len > 0).collect();
    by_place.sort_unstable_by_key(|held| held.offset);
    match by_place.windows(2).find(|pair| pair[0].offset + pair[0].len > pair[1].offset) {
        Some(pair) => Err(bad(&pair[1].name, format!("its bytes overlap those of `{}`", pair[0].name))),
        None => Ok(()),
    }
}

/// Checks that the manifest names each blob and each path once, and agrees with the container on
/// dtypes. `of_blob` has, for each blob, the index in `held` of the tensor of its name.
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
    // Only bytes in a file lack a checksum, since they are not read when they are shared.
    let in_file = |blob: &Blob| blob.file.is_some();
    if let Some(blob) = manifest.blobs.iter().find(|blob| in_file(blob) == blob.blake3.is_some()) {
        let reason = if in_file(blob) { "it is in a file, but has a checksum" } else { "it has no checksum" };
        return Err(bad(&blob.name, reason));
    }
    if let Some(blob) = manifest.blobs.iter().find(|blob| in_file(blob) && blob.base.is_some()) {
        return Err(bad(&blob.name, "it is both in a file and in another arena"));
    }
    let mut named = HashSet::new();
    if let Some(twice) = manifest.bases.iter().find(|base| !named.insert(base.0)) {
        return Err(bad(&manifest.pipeline, format!("it names the base {} twice", twice.0)));
    }
    // So reading all blobs is bounded by the size of the bases.
    let mut borrowed = HashSet::new();
    let places = manifest.blobs.iter().filter_map(|blob| Some((blob, blob.base.filter(|place| place.len > 0)?)));
    for (blob, BaseBlob { base, offset, .. }) in places {
        if !borrowed.insert((base, offset)) {
            return Err(bad(&blob.name, "another blob has the same place in the base"));
        }
    }
    let twice = "two entries have this path";
    once(manifest.tensors.iter().map(|entry| entry.path.as_str()), twice)?;
    once(manifest.copies.iter().map(|entry| entry.path.as_str()), twice)?;
    once(manifest.flags.iter().map(|entry| entry.path.as_str()), twice)?;

    let same = |path: &str, blob: u32, dtype: DType| {
        let in_container = manifest.blobs.get(blob as usize).is_some_and(Blob::is_own);
        let index = of_blob.get(blob as usize).copied().flatten().filter(|_| in_container);
        match index.and_then(|index| held.get(index)).map(|held| held.dtype) {
            Some(found) if found != dtype => Err(bad(
                path,
                format!(
                    "its type is {} in the manifest, and {} in the container",
                    dtype::name(dtype),
                    dtype::name(found)
                ),
            )),
            _ => Ok(()),
        }
    };
    manifest.tensors.iter().try_for_each(|entry| same(&entry.path, entry.blob, entry.dtype))?;
    manifest.copies.iter().try_for_each(|entry| same(&entry.path, entry.blob, DType::U8))?;

    // Tied tensors share a blob. Copied fields never do, since decoding each costs its size.
    let mut taken = vec![false; manifest.blobs.len()];
    // A blob that does not exist is reported by `check_entries`.
    let mut take = |blob: u32| taken.get_mut(blob as usize).is_some_and(|taken| std::mem::replace(taken, true));
    manifest.tensors.iter().for_each(|entry| {
        take(entry.blob);
    });
    match manifest.copies.iter().find(|entry| take(entry.blob)) {
        Some(entry) => Err(bad(&entry.path, "its bytes overlap those of another entry")),
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
