//! Arenas in files: inspects, verifies and seals them. See `save` for writing.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use burn_pack::HEADER_SIZE;

use super::arena::Arena;
use super::base;
use super::index::{BlobLocation, Index, read_index};
use super::io::{Progress, ProgressReporter, read_at, write_at};
use super::layout::header;
use super::manifest::{ArenaId, Blob};
use super::placement::Placement;
use super::ranges::{FileRange, RangeError, copy_ranges};
use super::region;
use super::region::Region;
use super::region::Stamp;
use super::tensor::SharedTensor;
use crate::error::arena::ArenaError;
use crate::os::sys::memfd;

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
    /// The container, then the containers of the manifest's bases. The latter are missing for the memfd
    /// of a variant in use.
    parts: Vec<Arc<Part>>,
}

/// An open container.
pub(super) struct Part {
    file: File,
    stamp: Stamp,
    /// The first bytes of the file, which end with the table of contents.
    head: Vec<u8>,
    index: Index,
}

impl Part {
    pub(super) fn open(path: &Path) -> Result<Self, ArenaError> {
        let (file, stamp) = region::open(path)?;
        let head = head(&file, &stamp)?;
        let index = read_index(&head, stamp.len)?;
        Ok(Self { file, stamp, head, index })
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn path(&self) -> &Path {
        &self.stamp.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the range of a blob, to be copied to the same place.
    fn range(&self, place: BlobLocation) -> FileRange<'_> {
        let (offset, len) = (place.offset as u64, place.len as u64);
        FileRange { file: self.file.as_fd(), from: offset, len, to: offset }
    }

    /// Copies the container into sealed memory, and compares the bytes of each of its blobs with their
    /// checksum.
    pub(super) fn seal(&self, progress: &mut dyn FnMut(Progress)) -> Result<Arc<Region>, ArenaError> {
        let len = self.stamp.len;
        let system = |(call, error): (&'static str, io::Error)| ArenaError::system(call, len, error);
        let fd = memfd::create(super::MEMFD, len).map_err(system)?;
        write_at(&fd, &self.head, 0).map_err(|error| system(("pwrite", error)))?;
        let blobs = self.index.manifest.blobs.iter().zip(&self.index.places);
        let own = blobs.filter(|(blob, _)| blob.is_own()).map(|(blob, place)| (self, blob, *place)).collect();
        check(own, Some(&fd), progress)?;
        let region = Region::sealed(memfd::seal(fd).map_err(|error| system(("fcntl(F_ADD_SEALS)", error)))?)?;
        region.mark_verified();
        Ok(region)
    }

    /// Returns the file as a region.
    fn in_place(&self, placement: Placement) -> Result<Option<Arc<Region>>, ArenaError> {
        let Some(promise) = placement.in_file else { return Ok(None) };
        let fd = self.file.try_clone().map_err(|error| ArenaError::file(&self.stamp.path, error))?;
        // Every entry of an arena has an alignment of 256 bytes, so the placement's is not needed.
        Region::file(fd.into(), self.stamp.clone(), promise).map(Some)
    }
}

/// Reads blobs, each in its part, compares their checksums, and copies them to the same place of a
/// target.
fn check(
    mut blobs: Vec<(&Part, &Blob, BlobLocation)>,
    target: Option<&std::os::fd::OwnedFd>,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), ArenaError> {
    crate::os::fork::adopt();
    blobs.sort_by_key(|(_, _, place)| (place.region, place.offset));
    let ranges: Vec<_> = blobs.iter().map(|(part, _, place)| part.range(*place)).collect();
    let mut meter = ProgressReporter::new(ranges.iter().map(|range| range.len).sum(), tell);
    let hashes = copy_ranges(&ranges, target.map(AsFd::as_fd), &mut meter).map_err(|(at, error)| {
        let stamp = &blobs[at].0.stamp;
        match error {
            RangeError::Read(error) => ArenaError::file(&stamp.path, error),
            RangeError::Write(error) => ArenaError::system("pwrite", stamp.len, error),
        }
    })?;
    for ((_, blob, _), hash) in blobs.iter().zip(hashes) {
        if let Some(expected) = &blob.blake3 {
            blob.check(expected, hash)?;
        }
    }
    Ok(())
}

impl ArenaFile {
    /// The pipeline name in the manifest of a packed checkpoint, which does not have a pipeline.
    pub(crate) const NO_PIPELINE: &str = "";

    /// Reads the table of contents of a saved arena.
    ///
    /// # Errors
    /// If the file cannot be read, is not an arena of this version, or is a variant, which
    /// [`open_variant`](Self::open_variant) opens. A plain burnpack file is a
    /// [`Checkpoint`](crate::Checkpoint).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ArenaError> {
        let path = path.as_ref();
        let part = Part::open(path)?;
        // A saved arena contains all of its bytes, since paths may not exist on another machine.
        // Only the memfd of an arena in use (`/proc/<pid>/fd/N`) may borrow: it can be inspected, but not
        // loaded.
        let in_use = || memfd::sealed(&part.file).is_ok_and(|seals| seals.contains(memfd::SEALS));
        if !part.index.is_whole() && !in_use() {
            return Err(part.borrows(path));
        }
        Ok(Self { parts: vec![Arc::new(part)] })
    }

    /// Reads the table of contents of a saved [variant](Arena::save_variant). `base` is the file of its
    /// base. If the base is a variant too, it was opened with its own base.
    ///
    /// A file that is not a variant needs no base, and is opened as it is.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
    /// # use ray_zerocopy::arena::ArenaFile;
    /// # use ray_zerocopy::{Pipeline, share};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { body: Linear, head: Linear }
    /// # impl Model {
    /// #     fn new(device: &Device) -> Self {
    /// #         Self { body: LinearConfig::new(64, 64).init(device), head: LinearConfig::new(64, 2).init(device) }
    /// #     }
    /// # }
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let [base_path, tuned_path] = ["base.bpk", "tuned.bpk"].map(|name| folder.path().join(name));
    /// # let (device, mut model) = (Device::flex(), Model::new(&Device::flex()));
    /// # let base = share(&model)?;
    /// # base.save(&base_path)?;
    /// # model.head = LinearConfig::new(64, 2).init(&device);
    /// # base.variant(&model)?.save_variant(&tuned_path)?;
    /// let tuned = ArenaFile::open_variant(&tuned_path, &ArenaFile::open(&base_path)?)?;
    /// tuned.verify(|_| ())?;
    /// assert!(tuned.size_bytes() < 16 << 10);
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open), if `base` is another arena than the variant's base, or if the variant
    /// contradicts its base.
    pub fn open_variant(path: impl AsRef<Path>, base: &Self) -> Result<Self, ArenaError> {
        let path = path.as_ref();
        let part = Part::open(path)?;
        if !part.index.manifest.files.is_empty() {
            return Err(part.borrows(path));
        }
        let containers: Vec<_> = base.parts.iter().map(|part| (part.index.id, Arc::clone(part))).collect();
        let named = || path.display().to_string();
        let bases = base::resolve(&part.index.manifest, &containers, named, base.id())?;
        for (number, base) in bases.iter().enumerate() {
            base::lends(&part.index, 1 + number, &base.index)?;
        }
        Ok(Self { parts: std::iter::once(Arc::new(part)).chain(bases).collect() })
    }

    /// Reads the id of a saved arena, or of a variant, which this does without its base.
    ///
    /// # Errors
    /// If the file cannot be read, or is not an arena of this version.
    pub fn read_id(path: impl AsRef<Path>) -> Result<ArenaId, ArenaError> {
        Ok(Part::open(path.as_ref())?.index.id)
    }

    pub(super) fn container(&self) -> &Part {
        &self.parts[0]
    }

    pub(super) fn index(&self) -> &Index {
        &self.container().index
    }

    /// Returns the part that is a region of the arena. `None` for a file that is borrowed from, and for a
    /// base that is not open.
    pub(super) fn part(&self, region: usize) -> Option<&Arc<Part>> {
        let files = self.index().manifest.files.len();
        let number = if region == 0 { 0 } else { region.checked_sub(files)? };
        self.parts.get(number).filter(|_| region == 0 || number > 0)
    }

    /// The id of the arena's content.
    pub fn id(&self) -> ArenaId {
        self.index().id
    }

    /// The Rust type of the pipeline that was shared. Empty for a packed checkpoint, see
    /// [`Checkpoint::pack`](crate::Checkpoint::pack).
    pub fn pipeline(&self) -> &str {
        &self.index().manifest.pipeline
    }

    /// BLAKE3 over the pipeline's type and the paths, dtypes and shapes of its tensors, in
    /// hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.index().manifest.fingerprint
    }

    /// The size of the file in bytes, without the file of a base.
    pub fn size_bytes(&self) -> u64 {
        self.container().stamp.len
    }

    /// The tensors, each with its path in the pipeline.
    pub fn tensors(&self) -> impl Iterator<Item = SharedTensor<'_>> {
        self.index().tensors(|region| match self.part(region) {
            Some(part) => Some(part.path()),
            None => self.index().file(region),
        })
    }

    /// The paths of the copied fields, and their serialised sizes in bytes.
    pub fn copied_fields(&self) -> impl Iterator<Item = (&str, u64)> {
        self.index().copied_fields()
    }

    /// Returns the serialised value of the copied field at a path. Returns `None` if the arena does
    /// not have it.
    ///
    /// # Errors
    /// If the value cannot be read, or is corrupted.
    pub fn copied_field(&self, path: &str) -> Result<Option<Vec<u8>>, ArenaError> {
        let Index { manifest, places, .. } = self.index();
        let Some(entry) = manifest.copies.iter().find(|entry| entry.path == path) else { return Ok(None) };
        let (blob, place) = (&manifest.blobs[entry.blob as usize], places[entry.blob as usize]);
        let missing = || base::needs_base(manifest, self.id(), Some(self.container().path()));
        let part = self.part(place.region).ok_or_else(missing)?;
        let mut bytes = vec![0; place.len];
        read_at(&part.file, &mut bytes, place.offset as u64).map_err(|error| ArenaError::file(part.path(), error))?;
        if let Some(expected) = &blob.blake3 {
            blob.check(expected, blake3::hash(&bytes))?;
        }
        Ok(Some(bytes))
    }

    /// The BLAKE3 checksum of each copied field in hexadecimal, in the order of
    /// [`copied_fields`](Self::copied_fields).
    pub fn copied_checksums(&self) -> impl Iterator<Item = Option<&str>> {
        let blobs = &self.index().manifest.blobs;
        self.index().manifest.copies.iter().map(|copy| blobs[copy.blob as usize].blake3.as_deref())
    }

    /// The files outside the container that weights are borrowed from. Empty for a saved arena. The
    /// memfd of an arena that a process has open may have some.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.index().manifest.files.iter().map(|stamp| stamp.path.as_path())
    }

    /// The arenas that a variant borrows from, and the bytes that it borrows from each. Empty for a whole
    /// arena.
    pub fn bases(&self) -> impl Iterator<Item = (ArenaId, u64)> {
        self.index().bases()
    }

    /// Returns each tensor with burn's id of the parameter and the offset of its bytes, for a
    /// checkpoint.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (SharedTensor<'_>, Option<u64>, u64)> {
        let Index { manifest, places, .. } = self.index();
        self.tensors()
            .zip(&manifest.tensors)
            .map(|(tensor, entry)| (tensor, entry.param, places[entry.blob as usize].offset as u64))
    }

    /// The BLAKE3 checksum of each tensor in hexadecimal, in the order of
    /// [`tensors`](Self::tensors).
    pub fn checksums(&self) -> impl Iterator<Item = Option<&str>> {
        let blobs = &self.index().manifest.blobs;
        self.index().manifest.tensors.iter().map(|tensor| blobs[tensor.blob as usize].blake3.as_deref())
    }

    /// Compares every byte with the checksums that were stored when the pipeline was shared, for a variant
    /// also those in the file of its base. Reads the files in chunks.
    ///
    /// The memfd of a variant that a process has open does not contain what it borrows, which is not read.
    ///
    /// # Errors
    /// If a file cannot be read, or a checksum differs. The error names the first such entry.
    pub fn verify(&self, mut progress: impl FnMut(Progress)) -> Result<(), ArenaError> {
        let blobs = self.index().manifest.blobs.iter().zip(&self.index().places);
        let there = blobs.filter_map(|(blob, place)| Some((&**self.part(place.region)?, blob, *place)));
        check(there.collect(), None, &mut progress)
    }

    /// Copies the arena into sealed memory, where it cannot change, and compares every byte with
    /// its checksum while copying. For a variant, its base is copied as well:
    /// [`Arena::open_variant`] borrows from one that is in memory.
    ///
    /// # Errors
    /// If there is not enough memory, a file cannot be read, or an entry is corrupted.
    pub fn seal(&self, mut progress: impl FnMut(Progress)) -> Result<Arena, ArenaError> {
        let regions = self.parts.iter().map(|part| part.seal(&mut progress));
        Arena::from_regions(regions.collect::<Result<_, _>>()?)
    }

    /// Opens the arena as the placement says: in sealed memory, or in the file itself.
    ///
    /// # Errors
    /// As [`seal`](Self::seal), or if the file has changed since it was opened.
    pub fn into_arena(self, placement: Placement, mut progress: impl FnMut(Progress)) -> Result<Arena, ArenaError> {
        let region = |part: &Arc<Part>| match part.in_place(placement)? {
            Some(region) => Ok(region),
            None => part.seal(&mut progress),
        };
        Arena::from_regions(self.parts.iter().map(region).collect::<Result<_, _>>()?)
    }
}

impl Part {
    /// The error of a saved arena that borrows.
    fn borrows(&self, path: &Path) -> ArenaError {
        match self.index.manifest.files.first() {
            Some(other) => {
                ArenaError::NotAnArena(format!("it is a saved file, but borrows from {}", other.path.display()))
            }
            None => base::needs_base(&self.index.manifest, self.index.id, Some(path)),
        }
    }
}

impl fmt::Debug for ArenaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ArenaFile");
        text.field("path", &self.container().path()).field("id", &self.id()).field("pipeline", &self.pipeline());
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
