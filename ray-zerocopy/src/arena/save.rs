//! Saves arenas in files and opens them again, whole or as variants.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::arena::Arena;
use super::base;
use super::builder::ArenaBuilder;
use super::file::{ArenaFile, Part};
use super::index::{BlobLocation, Index};
use super::io::{CHUNK, Progress, ProgressReporter, stream_file, write_at};
use super::manifest::ArenaId;
use super::placement::Placement;
use super::source::{Borrowed, FileSlice};
use crate::error::arena::ArenaError;
use crate::os;

impl Arena {
    /// Opens a saved arena: copies it into sealed memory, where it cannot change, and compares
    /// every byte with its checksum while copying.
    ///
    /// [`open_placed`](Self::open_placed) borrows the file instead, and [`ArenaFile`] inspects it
    /// without loading it.
    ///
    /// # Errors
    /// If the file cannot be read, is not an arena of this version, or is corrupted, or if it is a variant,
    /// which [`open_variant`](Self::open_variant) opens.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ArenaError> {
        ArenaFile::open(path)?.seal(|_| ())
    }

    /// Opens a saved arena as the placement says.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_placed(path: impl AsRef<Path>, placement: Placement) -> Result<Self, ArenaError> {
        ArenaFile::open(path)?.into_arena(placement, |_| ())
    }

    /// Opens a saved variant: copies what it stores into sealed memory, compares each byte of it with its
    /// checksum, and borrows the rest from `base`, without a copy.
    ///
    /// A file that is not a variant needs no base, and is opened as it is.
    ///
    /// # Errors
    /// As [`open`](Self::open), if `base` is another arena than the variant's base, or if the variant
    /// contradicts its base.
    ///
    /// There is an example at [`variant`](Self::variant).
    pub fn open_variant(path: impl AsRef<Path>, base: &Self) -> Result<Self, ArenaError> {
        let path = path.as_ref();
        let part = Part::open(path)?;
        if let Some(other) = part.index().manifest.files.first() {
            let reason = format!("it is a saved file, but borrows from {}", other.path.display());
            return Err(ArenaError::NotAnArena(reason));
        }
        Self::of_container(part.seal(&mut |_| ())?, base, || path.display().to_string())
    }

    /// Writes the arena to a file, for [`open`](Self::open) or for other tools that read burnpack.
    /// The file gets its name when it is complete, and replaces an existing file.
    ///
    /// The file contains everything, also what a [variant](Self::variant) borrows: a file that needs
    /// another one is only written on request, by [`save_variant`](Self::save_variant).
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ArenaError> {
        self.save_with_progress(path, |_| ())
    }

    /// Does the same as [`save`](Self::save), and reports progress in bytes.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_with_progress(
        &self,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(Progress),
    ) -> Result<(), ArenaError> {
        let (path, tell) = (path.as_ref(), &mut progress);
        replace(path, |file| {
            if self.is_whole() {
                self.write_container(path, file, tell)
            } else {
                self.rebuild()?.write_file(file, tell)
            }
        })
    }

    /// Writes a [variant](Self::variant) to a file that has what the arena stores itself, and names its
    /// base by its id. [`open_variant`](Self::open_variant) opens it.
    ///
    /// The file has the bytes that the arena has in memory, so its [`id`](Self::id) stays. An arena that
    /// borrows nothing is written whole.
    ///
    /// # Errors
    /// If the file cannot be written, or if the arena borrows weights from a file that is not an arena.
    pub fn save_variant(&self, path: impl AsRef<Path>) -> Result<(), ArenaError> {
        let path = path.as_ref();
        if let Some(file) = self.manifest().files.first() {
            return Err(ArenaError::BorrowsFile { file: file.path.display().to_string() });
        }
        replace(path, |file| self.write_container(path, file, &mut |_| ()))
    }

    /// Writes the arena's own container.
    fn write_container(&self, path: &Path, file: &File, tell: &mut dyn FnMut(Progress)) -> Result<(), ArenaError> {
        let len = self.own_bytes();
        os::limits::may_write(len).map_err(|error| ArenaError::system("pwrite", len, error))?;
        let mut meter = ProgressReporter::new(len, tell);
        let mut at = 0;
        let mut write = |bytes: &[u8]| {
            write_at(file, bytes, at).map_err(|error| error.to_string())?;
            at += bytes.len() as u64;
            meter.add(bytes.len());
            Ok(())
        };
        match self.fd() {
            Some(fd) => stream_file(fd, 0, len, &mut write),
            None => self.whole().chunks(CHUNK).try_for_each(write),
        }
        .map_err(|reason| ArenaError::file(path, io::Error::other(reason)))
    }

    /// Returns a builder that writes the same arena with everything in one container.
    pub(super) fn rebuild(&self) -> Result<ArenaBuilder, ArenaError> {
        let manifest = self.manifest();
        let mut builder = ArenaBuilder::new(&manifest.pipeline);
        for tensor in &manifest.tensors {
            let mut entry = tensor.clone();
            entry.why = None;
            builder.tensor(entry, Arc::new(Borrowed(self.slice(tensor.blob))))?;
        }
        manifest.copies.iter().for_each(|copy| builder.copy(&copy.path, self.slice(copy.blob).to_vec()));
        manifest.flags.iter().for_each(|flag| builder.flag(flag.path.clone(), flag.enabled));
        manifest.structure.iter().for_each(|what| builder.structure(what.clone()));
        Ok(builder)
    }
}

impl ArenaFile {
    /// Writes this arena as a variant of `base` to a file: what `base` has too, by checksum, is borrowed
    /// from there. Reads the tables of contents, and the bytes that are stored. If `base` is a variant
    /// itself, the result may borrow from the bases of `base` too.
    ///
    /// Returns the variant, opened.
    ///
    /// ```no_run
    /// # use ray_zerocopy::arena::ArenaFile;
    /// let (base, tuned) = (ArenaFile::open("base.bpk")?, ArenaFile::open("tuned.bpk")?);
    /// let variant = tuned.save_variant(&base, "tuned.variant.bpk", |_| ())?;
    /// println!("{} bytes are stored", variant.size_bytes());
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a file cannot be read or written, or if what is stored is corrupted.
    pub fn save_variant(
        &self,
        base: &Self,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Self, ArenaError> {
        let path = path.as_ref();
        let builder = self.on(base)?;
        replace(path, |file| builder.write_file(file, &mut progress))?;
        Self::open_variant(path, base)
    }

    /// Returns a builder that writes this arena as a variant of `base`.
    fn on(&self, base: &Self) -> Result<ArenaBuilder, ArenaError> {
        let manifest = &self.index().manifest;
        let mut builder = ArenaBuilder::new(&manifest.pipeline);
        let tensors = base.lendable(&mut base.index().manifest.tensors.iter().map(|entry| entry.blob));
        let mut copies = base.lendable(&mut base.index().manifest.copies.iter().map(|entry| entry.blob));
        for tensor in &manifest.tensors {
            let source = self.slice(tensor.blob)?;
            match tensors.get(&source.key()) {
                Some((id, place)) => builder.borrow_for_file(tensor.clone(), *id, *place, source.checksum_text()),
                None => builder.tensor(tensor.clone(), Arc::new(source))?,
            }
        }
        for copy in &manifest.copies {
            let source = self.slice(copy.blob)?;
            // Each blob of the base is borrowed by one copied field.
            match copies.remove(&source.key()) {
                Some((id, place)) => builder.copy_for_file(&copy.path, id, place, source.checksum_text()),
                None => builder.copy(&copy.path, self.copied_field(&copy.path)?.unwrap_or_default()),
            }
        }
        manifest.flags.iter().for_each(|flag| builder.flag(flag.path.clone(), flag.enabled));
        manifest.structure.iter().for_each(|what| builder.structure(what.clone()));
        Ok(builder)
    }

    /// Returns where blobs are, and in which arena, by their size and checksum.
    fn lendable(&self, blobs: &mut dyn Iterator<Item = u32>) -> HashMap<(usize, String), (ArenaId, BlobLocation)> {
        let Index { manifest, places, id } = self.index();
        let lendable = blobs.filter_map(|blob| {
            let place = places[blob as usize];
            let owner = if place.region == 0 { *id } else { self.index().base(place.region)? };
            let checksum = manifest.blobs[blob as usize].blake3.clone()?;
            (place.len > 0).then_some(((place.len, checksum), (owner, place)))
        });
        lendable.collect()
    }

    /// Returns the bytes of a blob as a source.
    fn slice(&self, blob: u32) -> Result<FileSlice, ArenaError> {
        let Index { manifest, places, id } = self.index();
        let (place, blob) = (places[blob as usize], &manifest.blobs[blob as usize]);
        let missing = || base::needs_base(manifest, *id, Some(self.container().path()));
        let part = Arc::clone(self.part(place.region).ok_or_else(missing)?);
        Ok(FileSlice { part, place, checksum: blob.blake3.clone().unwrap_or_default() })
    }
}

/// Writes a file that gets its name when it is complete, and replaces an existing one: see
/// [`os::replace`].
pub(crate) fn replace(path: &Path, write: impl FnOnce(&File) -> Result<(), ArenaError>) -> Result<(), ArenaError> {
    os::replace::replace(path, write, |error| ArenaError::file(path, error))
}
