//! Arenas in files: saves, inspects and opens them.

use crate::os::sys::memfd;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use burn_pack::HEADER_SIZE;

use super::arena::Arena;
use super::builder::ArenaBuilder;
use super::index::{BlobLocation, Index, read_index};
use super::io::{CHUNK, Progress, ProgressReporter, read_at, stream_file, write_at};
use super::layout::header;
use super::manifest::ArenaId;
use super::placement::Placement;
use super::ranges::{FileRange, RangeError, copy_ranges};
use super::region;
use super::region::Region;
use super::region::Stamp;
use super::tensor::SharedTensor;
use crate::error::arena::ArenaError;
use crate::os;
use crate::tensor::source::{BlobSource, sample};

/// A saved arena of which only the table of contents has been read.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::arena::ArenaFile;
/// # use ray_zerocopy::{Pipeline, load, share};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model {
/// #     fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
/// # }
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("model.bpk");
/// share(&Model::new(&Device::flex()))?.save(&path)?;
///
/// let file = ArenaFile::open(&path)?;
/// assert_eq!(file.tensors().map(|tensor| tensor.path).collect::<Vec<_>>(), ["head.weight", "head.bias"]);
/// let arena = file.seal(|progress| println!("{} of {} bytes", progress.done, progress.total))?;
/// let model = load::<Model>(&arena, &Device::flex())?;
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
pub struct ArenaFile {
    file: File,
    stamp: Stamp,
    /// The first bytes of the file, which end with the table of contents.
    head: Vec<u8>,
    read_index: Index,
}

impl ArenaFile {
    /// The pipeline name in the manifest of a packed checkpoint, which does not have a pipeline.
    pub(crate) const NO_PIPELINE: &str = "";

    /// Reads the table of contents of a saved arena.
    ///
    /// # Errors
    /// If the file cannot be read, or is not an arena of this version. A plain burnpack file is a
    /// [`Checkpoint`](crate::Checkpoint).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ArenaError> {
        let path = path.as_ref();
        let (file, stamp) = region::open(path)?;
        let head = head(&file, &stamp)?;
        let read_index = read_index(&head, stamp.len)?;
        // A saved arena contains all of its bytes, since paths may not exist on another machine.
        // Only the memfd of an arena in use (`/proc/<pid>/fd/N`) may borrow from files: it can be
        // inspected, but not loaded.
        let in_use = || memfd::sealed(&file).is_ok_and(|seals| seals.contains(memfd::SEALS));
        if let Some(other) = read_index.manifest.files.first()
            && !in_use()
        {
            return Err(ArenaError::NotAnArena(format!(
                "it is a saved file, but borrows from {}",
                other.path.display()
            )));
        }
        Ok(Self { file, stamp, head, read_index })
    }

    /// The id of the arena's content.
    pub fn id(&self) -> ArenaId {
        self.read_index.id
    }

    /// The Rust type of the pipeline that was shared. Empty for a packed checkpoint, see
    /// [`Checkpoint::pack`](crate::Checkpoint::pack).
    pub fn pipeline(&self) -> &str {
        &self.read_index.manifest.pipeline
    }

    /// BLAKE3 over the pipeline's type and the paths, dtypes and shapes of its tensors, in
    /// hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.read_index.manifest.fingerprint
    }

    /// The size of the file in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.stamp.len
    }

    /// The tensors, each with its path in the pipeline.
    pub fn tensors(&self) -> impl Iterator<Item = SharedTensor<'_>> {
        self.read_index.tensors(Some(&self.stamp.path))
    }

    /// The paths of the copied fields, and their serialised sizes in bytes.
    pub fn copied_fields(&self) -> impl Iterator<Item = (&str, u64)> {
        self.read_index.copied_fields()
    }

    /// Returns the serialised value of the copied field at a path. Returns `None` if the arena does
    /// not have it.
    ///
    /// # Errors
    /// If the value cannot be read, or is corrupted.
    pub fn copied_field(&self, path: &str) -> Result<Option<Vec<u8>>, ArenaError> {
        let Index { manifest, places, .. } = &self.read_index;
        let Some(entry) = manifest.copies.iter().find(|entry| entry.path == path) else { return Ok(None) };
        let (blob, place) = (&manifest.blobs[entry.blob as usize], places[entry.blob as usize]);
        let mut bytes = vec![0; place.len];
        read_at(&self.file, &mut bytes, place.offset as u64)
            .map_err(|error| ArenaError::file(&self.stamp.path, error))?;
        if let Some(expected) = &blob.blake3 {
            blob.check(expected, blake3::hash(&bytes))?;
        }
        Ok(Some(bytes))
    }

    /// The BLAKE3 checksum of each copied field in hexadecimal, in the order of
    /// [`copied_fields`](Self::copied_fields).
    pub fn copied_checksums(&self) -> impl Iterator<Item = Option<&str>> {
        let blobs = &self.read_index.manifest.blobs;
        self.read_index.manifest.copies.iter().map(|copy| blobs[copy.blob as usize].blake3.as_deref())
    }

    /// The files outside the container that weights are borrowed from. Empty for a saved arena. The
    /// memfd of an arena that a process has open may have some.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.read_index.manifest.files.iter().map(|stamp| stamp.path.as_path())
    }

    /// Returns each tensor with burn's id of the parameter and the offset of its bytes, for a
    /// checkpoint.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (SharedTensor<'_>, Option<u64>, u64)> {
        let Index { manifest, places, .. } = &self.read_index;
        self.tensors()
            .zip(&manifest.tensors)
            .map(|(tensor, entry)| (tensor, entry.param, places[entry.blob as usize].offset as u64))
    }

    /// The BLAKE3 checksum of each tensor in hexadecimal, in the order of
    /// [`tensors`](Self::tensors).
    pub fn checksums(&self) -> impl Iterator<Item = Option<&str>> {
        let blobs = &self.read_index.manifest.blobs;
        self.read_index.manifest.tensors.iter().map(|tensor| blobs[tensor.blob as usize].blake3.as_deref())
    }

    /// Compares every byte with the checksums that were stored when the pipeline was shared. Reads
    /// the file in chunks.
    ///
    /// # Errors
    /// If the file cannot be read, or a checksum differs. The error names the first such entry.
    pub fn verify(&self, mut progress: impl FnMut(Progress)) -> Result<(), ArenaError> {
        self.copy(None, &mut progress)
    }

    /// Copies the arena into sealed memory, where it cannot change, and compares every byte with
    /// its checksum while copying.
    ///
    /// # Errors
    /// If there is not enough memory, the file cannot be read, or an entry is corrupted.
    pub fn seal(&self, mut progress: impl FnMut(Progress)) -> Result<Arena, ArenaError> {
        let len = self.stamp.len;
        let system = |(call, error): (&'static str, io::Error)| ArenaError::system(call, len, error);
        let fd = memfd::create("ray-zerocopy", len).map_err(system)?;
        write_at(&fd, &self.head, 0).map_err(|error| system(("pwrite", error)))?;
        self.copy(Some(fd.as_fd()), &mut progress)?;
        let arena = Arena::from_memfd(memfd::seal(fd).map_err(|error| system(("fcntl(F_ADD_SEALS)", error)))?)?;
        arena.mark_verified();
        Ok(arena)
    }

    /// Opens the arena as the placement says: in sealed memory, or in the file itself.
    ///
    /// # Errors
    /// As [`seal`](Self::seal), or if the file has changed since it was opened.
    pub fn into_arena(self, placement: Placement, progress: impl FnMut(Progress)) -> Result<Arena, ArenaError> {
        match placement.in_file {
            None => self.seal(progress),
            // Every entry of an arena has an alignment of 256 bytes, so the placement's is not
            // needed.
            Some(promise) => Arena::from_regions(vec![Region::file(self.file.into(), self.stamp, promise)?]),
        }
    }

    /// Reads every blob, compares the checksums, and copies the bytes to the same place of a target.
    fn copy(&self, target: Option<BorrowedFd<'_>>, tell: &mut dyn FnMut(Progress)) -> Result<(), ArenaError> {
        crate::os::fork::adopt();
        let Index { manifest, places, .. } = &self.read_index;
        // Tensors in other files do not have a checksum.
        let mut inside: Vec<_> = manifest.blobs.iter().zip(places).filter(|(blob, _)| blob.file.is_none()).collect();
        inside.sort_by_key(|(_, place)| place.offset);
        let range = |place: &BlobLocation| {
            let (offset, len) = (place.offset as u64, place.len as u64);
            FileRange { file: self.file.as_fd(), from: offset, len, to: offset }
        };
        let ranges: Vec<_> = inside.iter().map(|(_, place)| range(place)).collect();
        let mut meter = ProgressReporter::new(ranges.iter().map(|range| range.len).sum(), tell);
        let hashes = copy_ranges(&ranges, target, &mut meter).map_err(|(_, error)| match error {
            RangeError::Read(error) => ArenaError::file(&self.stamp.path, error),
            RangeError::Write(error) => ArenaError::system("pwrite", self.stamp.len, error),
        })?;
        for ((blob, _), hash) in inside.into_iter().zip(hashes) {
            if let Some(expected) = &blob.blake3 {
                blob.check(expected, hash)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ArenaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ArenaFile");
        text.field("path", &self.stamp.path).field("id", &self.id()).field("pipeline", &self.pipeline());
        text.finish_non_exhaustive()
    }
}

/// Reads the head of a burnpack file: the header and the metadata, which precede the tensors.
pub(crate) fn head(file: &File, stamp: &Stamp) -> Result<Vec<u8>, ArenaError> {
    let failed = |error| ArenaError::file(&stamp.path, error);
    let not_one = |reason: String| ArenaError::NotAnArena(format!("{}: {reason}", stamp.path.display()));
    let mut head = vec![0; HEADER_SIZE.min(stamp.len as usize)];
    read_at(file, &mut head, 0).map_err(failed)?;
    let header = header(&head, stamp.len).map_err(|error| not_one(error.to_string()))?;
    let size = HEADER_SIZE as u64 + u64::from(header.metadata_size.min(burn_pack::MAX_METADATA_SIZE));
    head.resize(size.min(stamp.len) as usize, 0);
    read_at(file, &mut head, 0).map_err(failed)?;
    Ok(head)
}

impl Arena {
    /// Opens a saved arena: copies it into sealed memory, where it cannot change, and compares
    /// every byte with its checksum while copying.
    ///
    /// [`open_placed`](Self::open_placed) borrows the file instead, and [`ArenaFile`] inspects it
    /// without loading it.
    ///
    /// # Errors
    /// If the file cannot be read, is not an arena of this version, or is corrupted.
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

    /// Writes the arena to a file, for [`open`](Self::open) or for other tools that read burnpack.
    /// The file gets its name when it is complete, and replaces an existing file.
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
            if !self.is_whole() {
                return self.rebuild()?.write_file(file, tell);
            }
            os::limits::may_write(self.size_bytes())
                .map_err(|error| ArenaError::system("pwrite", self.size_bytes(), error))?;
            let mut meter = ProgressReporter::new(self.size_bytes(), tell);
            let mut at = 0;
            let mut write = |bytes: &[u8]| {
                write_at(file, bytes, at).map_err(|error| error.to_string())?;
                at += bytes.len() as u64;
                meter.add(bytes.len());
                Ok(())
            };
            match self.fd() {
                Some(fd) => stream_file(fd, 0, self.size_bytes(), &mut write),
                None => self.whole().chunks(CHUNK).try_for_each(write),
            }
            .map_err(|reason| ArenaError::file(path, io::Error::other(reason)))
        })
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

/// Writes a file that gets its name when it is complete, and replaces an existing one: see
/// [`os::replace`].
pub(crate) fn replace(path: &Path, write: impl FnOnce(&File) -> Result<(), ArenaError>) -> Result<(), ArenaError> {
    os::replace::replace(path, write, |error| ArenaError::file(path, error))
}

/// Bytes that are borrowed from an arena.
struct Borrowed(bytes::Bytes);

impl BlobSource for Borrowed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        sink(&self.0)
    }

    fn identity(&self) -> Option<(usize, usize)> {
        (!self.0.is_empty()).then(|| (self.0.as_ptr() as usize, 0))
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        Ok(sample(&self.0))
    }
}
