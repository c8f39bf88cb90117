//! Bases: other arenas that an arena borrows tensors and copied fields from.
//!
//! A base is named by its id, so the same manifest is valid in memory, in a file and on another machine.
//! A borrowed blob is one blob of the base's own container. What a base borrows itself is borrowed from
//! where it is, so bases do not form chains.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::arena::Arena;
use super::index::{BlobLocation, Index, bad};
use super::manifest::{ArenaId, Manifest};
use super::region::Region;
use crate::error::arena::ArenaError;
use crate::tensor::source::BlobSource;

/// Checks that the blobs that an arena borrows from a base are blobs of the base's container, with the
/// same checksums. `region` is the base's region in the arena.
pub(super) fn lends(arena: &Index, region: usize, base: &Index) -> Result<(), ArenaError> {
    let own = base.manifest.blobs.iter().zip(&base.places).filter(|(blob, _)| blob.is_own());
    let own: HashMap<(usize, usize), Option<&str>> =
        own.map(|(blob, place)| ((place.offset, place.len), blob.blake3.as_deref())).collect();
    for (blob, place) in arena.manifest.blobs.iter().zip(&arena.places) {
        if place.region != region || place.len == 0 {
            continue;
        }
        let BlobLocation { offset, len, .. } = *place;
        match own.get(&(offset, len)) {
            None => {
                let reason = format!("its base, arena {}, has no entry of {len} bytes at byte {offset}", base.id);
                return Err(bad(&blob.name, reason));
            }
            Some(found) if *found != blob.blake3.as_deref() => {
                let reason = format!(
                    "its checksum is {}, and that of its base, arena {}, is {}",
                    blob.blake3.as_deref().unwrap_or("missing"),
                    base.id,
                    found.unwrap_or("missing")
                );
                return Err(bad(&blob.name, reason));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Finds each base of a manifest among containers with their ids.
///
/// # Errors
/// If one is not there. `variant` and `given` are for the error.
pub(super) fn resolve<T: Clone>(
    manifest: &Manifest,
    containers: &[(ArenaId, T)],
    variant: impl Fn() -> String,
    given: ArenaId,
) -> Result<Vec<T>, ArenaError> {
    let find = |wanted: ArenaId| containers.iter().find(|(id, _)| *id == wanted).map(|(_, found)| found.clone());
    let missing = |wanted: ArenaId| ArenaError::OtherBase {
        variant: variant(),
        expected: wanted.to_string(),
        found: given.to_string(),
    };
    manifest.bases.iter().map(|wanted| find(wanted.0).ok_or_else(|| missing(wanted.0))).collect()
}

/// The error of a variant that is opened without its base.
pub(super) fn needs_base(manifest: &Manifest, id: ArenaId, path: Option<&Path>) -> ArenaError {
    let bases: Vec<_> = manifest.bases.iter().map(|base| base.0.to_string()).collect();
    ArenaError::NeedsBase {
        variant: path.map_or_else(|| format!("arena {id}"), |path| format!("{} (arena {id})", path.display())),
        base: bases.join(", "),
    }
}

impl Arena {
    /// Opens the container of a variant with its base. `variant` names it in errors.
    ///
    /// # Errors
    /// If the container is not a valid arena, or not a variant of this base.
    pub(super) fn of_container(
        container: Arc<Region>,
        base: &Self,
        variant: impl Fn() -> String,
    ) -> Result<Self, ArenaError> {
        let bases = resolve(&container.index()?.manifest, &base.containers(), variant, base.id())?;
        Self::from_regions(std::iter::once(container).chain(bases).collect())
    }

    /// Opens a variant in a sealed memfd with its base.
    ///
    /// # Errors
    /// As [`from_memfd`](Self::from_memfd), or if it is not a variant of this base.
    pub(crate) fn from_memfd_on(fd: OwnedFd, base: &Self) -> Result<Self, ArenaError> {
        Self::of_container(Region::sealed(fd)?, base, || "the memfd".to_owned())
    }

    /// The bytes of the arena's own container: its table of contents, and what it does not borrow.
    pub fn own_bytes(&self) -> u64 {
        self.regions()[0].memory.len() as u64
    }

    /// The arenas that this one borrows from, and the bytes that it borrows from each. Empty, unless the
    /// arena is a [variant](Self::variant) or a graph that was [traced](crate::jit::trace()) on another
    /// arena.
    ///
    /// A variant of a variant borrows from where the bytes are, so it may name both.
    pub fn bases(&self) -> impl Iterator<Item = (ArenaId, u64)> {
        self.index().bases()
    }

    /// The containers that an arena can borrow from, if it borrows from this one.
    pub(super) fn containers(&self) -> Vec<(ArenaId, Arc<Region>)> {
        let regions = self.regions().iter().enumerate();
        let id = |region| if region == 0 { Some(self.id()) } else { self.index().base(region) };
        regions.filter_map(|(at, region)| Some((id(at)?, Arc::clone(region)))).collect()
    }

    /// Returns where a blob is, for an arena that borrows it.
    pub(super) fn lend(&self, blob: u32) -> Lent {
        let place = self.places()[blob as usize];
        let region = Arc::clone(&self.regions()[place.region]);
        let base = if place.region == 0 { Some(self.id()) } else { self.index().base(place.region) };
        let checksum = self.manifest().blobs[blob as usize].blake3.clone();
        Lent { region, base, checksum, offset: place.offset as u64, len: place.len as u64 }
    }
}

/// A blob of another arena.
pub(super) struct Lent {
    pub region: Arc<Region>,
    /// The arena whose container has it. `None` for a file that is not an arena.
    pub base: Option<ArenaId>,
    pub checksum: Option<String>,
    pub offset: u64,
    pub len: u64,
}

/// The tensors and copied fields of a base, to find equal ones.
pub(super) struct BaseBlobs {
    arena: Arena,
    /// Blobs of tensors by their size.
    tensors: HashMap<usize, Vec<u32>>,
    /// Blobs of copied fields by their size.
    copies: HashMap<usize, Vec<u32>>,
}

impl BaseBlobs {
    pub(super) fn of(arena: &Arena) -> Self {
        let by_size = |blobs: &mut dyn Iterator<Item = u32>| {
            let mut found: HashMap<usize, Vec<u32>> = HashMap::new();
            let mut seen = vec![false; arena.places().len()];
            for blob in blobs.filter(|&blob| !std::mem::replace(&mut seen[blob as usize], true)) {
                found.entry(arena.places()[blob as usize].len).or_default().push(blob);
            }
            found
        };
        let manifest = arena.manifest();
        Self {
            tensors: by_size(&mut manifest.tensors.iter().map(|entry| entry.blob)),
            copies: by_size(&mut manifest.copies.iter().map(|entry| entry.blob)),
            arena: arena.clone(),
        }
    }

    pub(super) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Finds a tensor of the base with the bytes of `source`. Reading stops where no tensor is equal any
    /// more.
    ///
    /// # Errors
    /// If `source` cannot be read.
    pub(super) fn tensor(&self, source: &dyn BlobSource) -> Result<Option<u32>, String> {
        let mut equal: Vec<(u32, bytes::Bytes)> = match self.tensors.get(&source.len()) {
            // Nothing is saved by borrowing no bytes.
            Some(blobs) if source.len() > 0 => blobs.iter().map(|&blob| (blob, self.arena.slice(blob))).collect(),
            _ => return Ok(None),
        };
        let mut at = 0;
        let read = source.stream(&mut |chunk| {
            equal.retain(|(_, bytes)| bytes.get(at..at + chunk.len()) == Some(chunk));
            at += chunk.len();
            if equal.is_empty() { Err(String::new()) } else { Ok(()) }
        });
        if equal.is_empty() {
            return Ok(None);
        }
        read?;
        Ok(equal.first().map(|(blob, _)| *blob))
    }

    /// Finds a copied field of the base with this serialised value. Each is found once.
    pub(super) fn take_copy(&mut self, value: &[u8]) -> Option<u32> {
        let blobs = self.copies.get_mut(&value.len()).filter(|_| !value.is_empty())?;
        let found = blobs.iter().position(|&blob| self.arena.slice(blob) == value)?;
        Some(blobs.swap_remove(found))
    }
}
