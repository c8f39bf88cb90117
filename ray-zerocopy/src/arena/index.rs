//! The table of contents of an arena, fully validated before any tensor is read.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn_pack::TENSOR_ALIGNMENT;

use super::layout::{Described, Head};
use super::manifest::{ArenaId, Manifest};
use super::manifest::{BaseBlob, Blob, FORMAT, FileBlob, HexId};
use super::manifest::{CHECKSUM_KEY, MANIFEST_KEY};
use super::tensor::{Location, SharedTensor};
use super::validate;
use super::validate::Held;
use crate::error::arena::ArenaError;
use crate::tensor::dtype;
use crate::tensor::kind::TensorKind;

/// Location of a blob: in the container, which is region 0, in a file, or in the container of a base.
/// The regions of the files follow the container, and those of the bases follow the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlobLocation {
    pub region: usize,
    pub offset: usize,
    pub len: usize,
}

/// Validated manifest and blob locations of an arena.
pub(super) struct Index {
    pub manifest: Manifest,
    pub places: Vec<BlobLocation>,
    pub id: ArenaId,
}

impl Index {
    /// Returns the shared tensors. `path` returns the path of a region that is a file.
    pub fn tensors<'a>(
        &'a self,
        path: impl Fn(usize) -> Option<&'a Path> + 'a,
    ) -> impl Iterator<Item = SharedTensor<'a>> {
        self.manifest.tensors.iter().map(move |entry| {
            let place = self.places[entry.blob as usize];
            let base = self.base(place.region);
            let placed = match (path(place.region), base) {
                (Some(path), _) => Location::File { path, offset: place.offset as u64 },
                (None, Some(id)) => Location::Base { id },
                (None, None) => Location::Sealed { reason: entry.why.as_deref() },
            };
            let (path, kind, dtype, shape) = (&entry.path, entry.kind, entry.dtype, &entry.shape);
            SharedTensor { path, kind, dtype, shape, bytes: place.len as u64, base, placed }
        })
    }

    /// Returns the id of the base whose container is a region. `None` for the arena's own container,
    /// and for files.
    pub fn base(&self, region: usize) -> Option<ArenaId> {
        let number = region.checked_sub(1 + self.manifest.files.len())?;
        self.manifest.bases.get(number).map(|HexId(id)| *id)
    }

    /// Returns the bases, and the bytes that are borrowed from each.
    pub fn bases(&self) -> impl Iterator<Item = (ArenaId, u64)> {
        let mut sums = vec![0; self.manifest.bases.len()];
        for place in &self.places {
            let number = place.region.checked_sub(1 + self.manifest.files.len());
            if let Some(sum) = number.and_then(|number| sums.get_mut(number)) {
                *sum += place.len as u64;
            }
        }
        self.manifest.bases.iter().zip(sums).map(|(base, sum)| (base.0, sum))
    }

    /// Returns whether the container is the whole arena.
    pub fn is_whole(&self) -> bool {
        self.manifest.files.is_empty() && self.manifest.bases.is_empty()
    }

    /// Returns the path of the file that is a region.
    pub fn file(&self, region: usize) -> Option<&Path> {
        self.manifest.files.get(region.checked_sub(1)?).map(|stamp| stamp.path.as_path())
    }

    /// Returns the paths and the serialised sizes in bytes of the copied fields.
    pub fn copied_fields(&self) -> impl Iterator<Item = (&str, u64)> {
        let copies = self.manifest.copies.iter();
        copies.map(|entry| (entry.path.as_str(), self.places[entry.blob as usize].len as u64))
    }
}

impl Blob {
    /// Compares a checksum with the stored one.
    pub(super) fn check(&self, expected: &str, found: blake3::Hash) -> Result<(), ArenaError> {
        let found = found.to_hex();
        if found.as_str() == expected {
            Ok(())
        } else {
            Err(ArenaError::BlobChecksum {
                entry: self.name.clone(),
                expected: expected.to_owned(),
                found: found.to_string(),
            })
        }
    }
}

/// Parses and validates the head of a container of `len` bytes. `start` must begin with the whole
/// head; bytes after it are not read.
pub(super) fn read_index(start: &[u8], len: u64) -> Result<Index, ArenaError> {
    let head = Head::read(start, len).map_err(|error| ArenaError::NotAnArena(error.to_string()))?;
    let (Some(text), Some(expected)) = (head.texts.get(MANIFEST_KEY), head.texts.get(CHECKSUM_KEY)) else {
        return Err(ArenaError::NotAnArena("it is a burnpack container without a manifest of ray-zerocopy".to_owned()));
    };
    let hash = blake3::hash(text.as_bytes());
    if hash.to_hex().as_str() != expected {
        return Err(ArenaError::ManifestChecksum { expected: expected.clone(), found: hash.to_hex().to_string() });
    }
    validate::frame(start, text)?;
    let mut manifest = parse(text)?;
    // A process may have hundreds of small arenas open.
    manifest.tensors.shrink_to_fit();
    manifest.blobs.shrink_to_fit();
    let places = locate(&manifest, head.tensors)?;
    check_entries(&manifest, &places)?;
    Ok(Index { manifest, places, id: ArenaId(*hash.as_bytes()) })
}

fn parse(text: &str) -> Result<Manifest, ArenaError> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    // The manifest of another version may have other fields, and its version is to be reported.
    let (found, manifest) = match serde_json::from_str::<Manifest>(text) {
        Ok(manifest) => (manifest.format, Ok(manifest)),
        Err(error) => {
            let unreadable = ArenaError::NotAnArena(format!("its manifest is unreadable: {error}"));
            let version = serde_json::from_str(text).map(|Version { format }| format);
            (version.unwrap_or(FORMAT), Err(unreadable))
        }
    };
    if found == FORMAT {
        manifest
    } else {
        Err(ArenaError::Format { found: found.to_string(), expected: FORMAT.to_string() })
    }
}

/// Returns the location of each blob of the manifest.
fn locate(manifest: &Manifest, tensors: BTreeMap<String, Described>) -> Result<Vec<BlobLocation>, ArenaError> {
    let mut held = Vec::with_capacity(tensors.len());
    for (name, Described { dtype, offset, len, .. }) in tensors {
        // A tensor without elements has no bytes, so its offset is not checked.
        let offset = if len == 0 { 0 } else { offset };
        // flex panics when it reads a misaligned weight in place. An error here is better than a
        // panic in a forward pass.
        if offset % TENSOR_ALIGNMENT != 0 {
            return Err(bad(
                &name,
                format!("it starts at byte {offset}, which is not a multiple of {TENSOR_ALIGNMENT}"),
            ));
        }
        held.push(Held { name, dtype, offset: offset as usize, len: len as usize });
    }
    validate::apart(&held)?;
    // Names are looked up once. The rest of the validation uses indices.
    let mut by_name = HashMap::with_capacity(held.len());
    by_name.extend(held.iter().enumerate().map(|(index, held)| (held.name.as_str(), index)));
    let of_blob: Vec<_> = manifest.blobs.iter().map(|blob| by_name.get(blob.name.as_str()).copied()).collect();
    validate::table(manifest, &held, &of_blob)?;
    let place = |(blob, held_at): (&Blob, &Option<usize>)| match (blob.file, blob.base) {
        (Some(place), _) => in_file(manifest, blob, place),
        (None, Some(place)) => in_base(manifest, blob, place),
        (None, None) => match held_at.and_then(|index| held.get(index)) {
            Some(held) => Ok(BlobLocation { region: 0, offset: held.offset, len: held.len }),
            None => Err(bad(&blob.name, "the container does not contain it")),
        },
    };
    manifest.blobs.iter().zip(&of_blob).map(place).collect()
}

/// Returns the location of a blob in a file. Fails if the file ends before the blob does.
fn in_file(manifest: &Manifest, blob: &Blob, place: FileBlob) -> Result<BlobLocation, ArenaError> {
    let file = manifest.files.get(place.file as usize);
    let file = file.ok_or_else(|| {
        bad(&blob.name, format!("it names file {}, and there are {}", place.file, manifest.files.len()))
    })?;
    match place.offset.checked_add(place.len) {
        Some(end) if end <= file.len => {
            Ok(BlobLocation { region: 1 + place.file as usize, offset: place.offset as usize, len: place.len as usize })
        }
        _ => Err(bad(&blob.name, format!("it ends after the end of {}", file.path.display()))),
    }
}

/// Returns the location of a blob in a base. Whether the base has such a blob is checked when the base
/// is there: see [`lends`](super::base::lends).
fn in_base(manifest: &Manifest, blob: &Blob, place: BaseBlob) -> Result<BlobLocation, ArenaError> {
    let BaseBlob { base, offset, len } = place;
    let bases = manifest.bases.len();
    if base as usize >= bases {
        return Err(bad(&blob.name, format!("it names base {base}, and there are {bases}")));
    }
    Ok(BlobLocation { region: 1 + manifest.files.len() + base as usize, offset: offset as usize, len: len as usize })
}

fn check_entries(manifest: &Manifest, blobs: &[BlobLocation]) -> Result<(), ArenaError> {
    for entry in &manifest.tensors {
        let Some(BlobLocation { offset, len, .. }) = blobs.get(entry.blob as usize) else {
            return Err(bad(&entry.path, format!("it names blob {}, and there are {}", entry.blob, blobs.len())));
        };
        dtype::fits(entry.dtype, &entry.shape, *len).map_err(|reason| bad(&entry.path, reason))?;
        // Such a tensor could be created, and would panic in its first operation.
        if entry.kind != TensorKind::of(entry.dtype) {
            return Err(bad(
                &entry.path,
                format!("a tensor of kind {} has no elements of {:?}", entry.kind, entry.dtype),
            ));
        }
        // flex would read a misaligned weight in place, and panic in its first operation.
        if *len > 0 && offset % entry.dtype.size().max(1) != 0 {
            return Err(bad(
                &entry.path,
                format!("it starts at byte {offset}, which is not a multiple of the size of {:?}", entry.dtype),
            ));
        }
    }
    match manifest.copies.iter().find(|entry| entry.blob as usize >= blobs.len()) {
        Some(entry) => Err(bad(&entry.path, format!("it names blob {}, and there are {}", entry.blob, blobs.len()))),
        None if Manifest::fingerprint(&manifest.pipeline, &manifest.tensors) != manifest.fingerprint => {
            Err(bad(&manifest.pipeline, "its schema fingerprint does not match its tensors"))
        }
        None => Ok(()),
    }
}

pub(super) fn bad(entry: &str, reason: impl Into<String>) -> ArenaError {
    ArenaError::BadEntry { entry: entry.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::super::manifest::{Manifest, TensorEntry};
    use super::*;

    fn refused(kind: TensorKind, dtype: DType) -> Option<String> {
        let tensors =
            vec![TensorEntry { path: "a".to_owned(), blob: 0, kind, dtype, shape: vec![2], param: None, why: None }];
        let manifest = Manifest {
            format: FORMAT,
            pipeline: "P".to_owned(),
            fingerprint: Manifest::fingerprint("P", &tensors),
            tensors,
            copies: Vec::new(),
            flags: Vec::new(),
            structure: Vec::new(),
            blobs: Vec::new(),
            files: Vec::new(),
            bases: Vec::new(),
        };
        check_entries(&manifest, &[BlobLocation { region: 0, offset: 0, len: 2 * dtype.size() }])
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn dtype_of_another_kind_is_refused() {
        assert_eq!(refused(TensorKind::Float, DType::F16), None);
        assert_eq!(refused(TensorKind::Int, DType::U8), None);
        let error = refused(TensorKind::Float, DType::I32).unwrap_or_default();
        assert_eq!(error, "entry `a` of the arena is corrupted: a tensor of kind float has no elements of I32");
        assert!(refused(TensorKind::Bool, DType::U8).is_some());
        assert!(refused(TensorKind::Int, DType::F32).is_some());
    }
}
