//! Builds an arena: deduplicates tensors, computes the layout, copies the bytes and seals the
//! memfd.
//!
//! A tensor is never in memory twice. Its bytes are copied in chunks from their source to the
//! memfd, and their checksum is computed while they are copied.

use crate::arena::manifest::CHECKSUM_KEY;
use crate::arena::manifest::MANIFEST_KEY;
use crate::os::sys::memfd;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use burn::tensor::{Bytes, DType};
use burn_pack::{MAX_METADATA_SIZE, MAX_TENSOR_COUNT, MAX_TENSOR_SIZE};

use super::base::{BaseBlobs, Lent};
use super::index::BlobLocation;
use super::io::Progress;
use super::io::{ProgressReporter, copy, write_at};
use super::layout::{ContainerLayout, Descriptor};
use super::manifest::{ArenaId, BaseBlob, Blob, FORMAT, FileBlob, HexId};
use super::manifest::{CopyEntry, FlagEntry, Manifest, TensorEntry};
use super::ranges::{FileRange, RangeError, copy_ranges};
use super::region::Stamp;
use super::region::{Backing, Region};
use super::source::{Value, digest};
use crate::arena::arena::Arena;
use crate::error::arena::ArenaError;
use crate::os::limits;
use crate::os::sys::mapping::FileUnchanged;
use crate::tensor::source::BlobSource;

/// Placeholder for a checksum that is not known yet, of the same length.
const UNKNOWN: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The name of a copied field's blob.
fn copied(path: &str) -> String {
    format!("copied: {path}")
}

/// Collects tensors and copied fields, and writes them as an arena.
pub(crate) struct ArenaBuilder {
    manifest: Manifest,
    /// Blobs that are written into the container.
    stored: Vec<Stored>,
    by_identity: HashMap<(usize, usize, String), u32>,
    /// Blobs by dtype, size and sample. Blobs of the same key may be equal.
    by_sample: HashMap<(String, usize, Vec<u8>), Vec<u32>>,
    /// Blobs in a file or in another arena, by their location.
    by_place: HashMap<Elsewhere, u32>,
    /// The files of the manifest.
    files: Vec<Arc<Region>>,
    /// The containers of the manifest's bases. Empty if only a file is written.
    bases: Vec<Arc<Region>>,
    /// The arena whose equal tensors and copied fields are borrowed.
    base: Option<BaseBlobs>,
    /// Equal tensors with different storage are stored separately if they are smaller.
    apart_below: usize,
    /// Keeps the storages allocated while their addresses are keys of `by_identity`.
    kept: Vec<Arc<dyn BlobSource>>,
}

/// Location of a blob outside of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Elsewhere {
    File(FileBlob),
    Base(BaseBlob),
}

struct Stored {
    blob: u32,
    descriptor: Descriptor,
    source: Arc<dyn BlobSource>,
    /// Computed before the copy if another tensor has the same dtype, size and sample.
    hash: Option<blake3::Hash>,
}

impl ArenaBuilder {
    pub(crate) fn new(pipeline: &str) -> Self {
        Self {
            manifest: Manifest {
                format: FORMAT,
                pipeline: pipeline.to_owned(),
                fingerprint: String::new(),
                tensors: Vec::new(),
                copies: Vec::new(),
                flags: Vec::new(),
                structure: Vec::new(),
                blobs: Vec::new(),
                files: Vec::new(),
                bases: Vec::new(),
            },
            stored: Vec::new(),
            by_identity: HashMap::new(),
            by_sample: HashMap::new(),
            by_place: HashMap::new(),
            files: Vec::new(),
            bases: Vec::new(),
            base: None,
            apart_below: 0,
            kept: Vec::new(),
        }
    }

    /// Stores equal tensors with different storage separately if they have fewer bytes, for code that may write
    /// to them.
    #[cfg(any(feature = "torchscript", feature = "ray"))]
    pub(crate) fn apart_below(mut self, bytes: usize) -> Self {
        self.apart_below = bytes;
        self
    }

    /// Borrows tensors and copied fields that `base` has too from there.
    pub(crate) fn on(mut self, base: &Arena) -> Self {
        self.base = Some(BaseBlobs::of(base));
        self
    }

    /// Adds a tensor. Tensors with the same storage or the same content are stored once.
    pub(crate) fn tensor(&mut self, mut entry: TensorEntry, source: Arc<dyn BlobSource>) -> Result<(), ArenaError> {
        let layout = format!("{:?}{:?}", entry.dtype, entry.shape);
        let identity = source.identity().map(|(at, offset)| (at, offset, layout));
        let known = identity.as_ref().and_then(|identity| self.by_identity.get(identity)).copied();
        entry.blob = match known {
            Some(blob) => blob,
            None => match self.in_base(&entry, &*source)? {
                Some(blob) => blob,
                None => self.store(&entry, &source)?,
            },
        };
        if let Some(identity) = identity {
            self.by_identity.insert(identity, entry.blob);
            self.kept.push(source);
        }
        self.manifest.tensors.push(entry);
        Ok(())
    }

    /// Borrows a tensor from the base, if that has an equal one.
    fn in_base(&mut self, entry: &TensorEntry, source: &dyn BlobSource) -> Result<Option<u32>, ArenaError> {
        let Some(base) = &self.base else { return Ok(None) };
        let failed = |reason: String| ArenaError::Write { entry: entry.path.clone(), reason };
        let Some(blob) = base.tensor(source).map_err(failed)? else { return Ok(None) };
        let lent = base.arena().lend(blob);
        self.lent(&entry.path, lent).map(Some)
    }

    /// Adds a tensor if the base has an equal one, and returns whether it does.
    ///
    /// # Errors
    /// If the tensor cannot be read.
    pub(crate) fn tensor_of_base(&mut self, entry: &TensorEntry, source: &dyn BlobSource) -> Result<bool, ArenaError> {
        let Some(blob) = self.in_base(entry, source)? else { return Ok(false) };
        self.manifest.tensors.push(TensorEntry { blob, why: None, ..entry.clone() });
        Ok(true)
    }

    fn store(&mut self, entry: &TensorEntry, source: &Arc<dyn BlobSource>) -> Result<u32, ArenaError> {
        let failed = |reason: String| ArenaError::Write { entry: entry.path.clone(), reason };
        within(&format!("the bytes of `{}`", entry.path), source.len(), MAX_TENSOR_SIZE)?;
        // The same bytes with two dtypes are stored twice, since an entry of a container has one
        // dtype.
        let looks = (format!("{:?}", entry.dtype), source.len(), source.sample().map_err(failed)?);
        let alike = self.by_sample.get(&looks).filter(|_| source.len() >= self.apart_below);
        let alike = alike.cloned().unwrap_or_default();
        let mut hash = None;
        if !alike.is_empty() {
            let own = digest(&**source).map_err(failed)?;
            for blob in alike {
                let Ok(at) = self.stored.binary_search_by_key(&blob, |stored| stored.blob) else { continue };
                let other = &mut self.stored[at];
                let known = match other.hash {
                    Some(known) => known,
                    None => *other.hash.insert(digest(&*other.source).map_err(failed)?),
                };
                if known == own {
                    return Ok(blob);
                }
            }
            hash = Some(own);
        }
        let descriptor = Descriptor {
            name: entry.path.clone(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            param: entry.param,
            len: source.len(),
        };
        let blob = self.blob(descriptor, Arc::clone(source), hash);
        self.by_sample.entry(looks).or_default().push(blob);
        Ok(blob)
    }

    fn blob(&mut self, descriptor: Descriptor, source: Arc<dyn BlobSource>, hash: Option<blake3::Hash>) -> u32 {
        let blob = self.manifest.blobs.len() as u32;
        self.manifest.blobs.push(Blob {
            name: descriptor.name.clone(),
            blake3: Some(UNKNOWN.to_owned()),
            file: None,
            base: None,
        });
        self.stored.push(Stored { blob, descriptor, source, hash });
        blob
    }

    /// Adds a file that tensors are borrowed from. Returns its index.
    ///
    /// # Errors
    /// If the file has changed, or cannot be mapped.
    pub(crate) fn file(&mut self, fd: OwnedFd, stamp: Stamp, promise: FileUnchanged) -> Result<u32, ArenaError> {
        self.files.push(Region::file(fd, stamp.clone(), promise)?);
        self.manifest.files.push(stamp);
        Ok(self.files.len() as u32 - 1)
    }

    /// Adds a tensor that is borrowed from another arena.
    ///
    /// # Errors
    /// If it is in memory that is neither an arena nor a file.
    pub(crate) fn borrow(&mut self, mut entry: TensorEntry, arena: &Arena) -> Result<(), ArenaError> {
        entry.blob = self.lent(&entry.path, arena.lend(entry.blob))?;
        self.manifest.tensors.push(entry);
        Ok(())
    }

    /// Adds a blob of another arena, and the region that it is in. Returns the index of the blob.
    fn lent(&mut self, name: &str, lent: Lent) -> Result<u32, ArenaError> {
        let Lent { region, base, checksum, offset, len } = lent;
        if let Some(id) = base {
            let base = self.base_number(id);
            if base as usize == self.bases.len() {
                self.bases.push(region);
            }
            return Ok(self.elsewhere(name, Elsewhere::Base(BaseBlob { base, offset, len }), checksum));
        }
        let Backing::File(stamp, _) = &region.backing else { return Err(ArenaError::InStore) };
        let known = self.manifest.files.iter().position(|known| known == stamp);
        let file = known.unwrap_or(self.files.len());
        if known.is_none() {
            self.manifest.files.push(stamp.clone());
            self.files.push(region);
        }
        Ok(self.elsewhere(name, Elsewhere::File(FileBlob { file: file as u32, offset, len }), None))
    }

    /// Returns the index of a base, which is added if it is new.
    fn base_number(&mut self, id: ArenaId) -> u32 {
        let known = self.manifest.bases.iter().position(|known| known.0 == id);
        known.unwrap_or_else(|| {
            self.manifest.bases.push(HexId(id));
            self.manifest.bases.len() - 1
        }) as u32
    }

    /// Adds a tensor that is borrowed from the base of this id, for a file.
    pub(super) fn borrow_for_file(&mut self, mut entry: TensorEntry, id: ArenaId, place: BlobLocation, checksum: &str) {
        let base = self.base_number(id);
        let place = BaseBlob { base, offset: place.offset as u64, len: place.len as u64 };
        entry.blob = self.elsewhere(&entry.path, Elsewhere::Base(place), Some(checksum.to_owned()));
        self.manifest.tensors.push(entry);
    }

    /// Adds a copied field that is borrowed from the base of this id, for a file.
    pub(super) fn copy_for_file(&mut self, path: &str, id: ArenaId, place: BlobLocation, checksum: &str) {
        let base = self.base_number(id);
        let place = BaseBlob { base, offset: place.offset as u64, len: place.len as u64 };
        let blob = self.elsewhere(&copied(path), Elsewhere::Base(place), Some(checksum.to_owned()));
        self.manifest.copies.push(CopyEntry { path: path.to_owned(), blob });
    }

    /// Adds a tensor whose bytes are in memory.
    ///
    /// # Errors
    /// If the tensor is larger than burnpack allows.
    pub(crate) fn bytes(&mut self, entry: TensorEntry, bytes: bytes::Bytes) -> Result<(), ArenaError> {
        let bytes = Bytes::from_shared(bytes, burn::tensor::AllocationProperty::Other);
        self.tensor(entry, Arc::new(Value(bytes)))
    }

    /// Adds a tensor that does not belong to a parameter.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub(crate) fn constant(
        &mut self,
        path: &str,
        dtype: DType,
        shape: Vec<usize>,
        bytes: bytes::Bytes,
    ) -> Result<(), ArenaError> {
        let kind = crate::tensor::kind::TensorKind::of(dtype);
        let entry = TensorEntry { path: path.to_owned(), blob: 0, kind, dtype, shape, param: None, why: None };
        self.bytes(entry, bytes)
    }

    /// Adds a tensor that is borrowed from a file. Tensors at the same location share a blob.
    pub(crate) fn in_file(&mut self, mut entry: TensorEntry, place: FileBlob) {
        entry.blob = self.elsewhere(&entry.path, Elsewhere::File(place), None);
        self.manifest.tensors.push(entry);
    }

    /// Adds a blob outside of the container, if it is new. Returns its index.
    fn elsewhere(&mut self, name: &str, place: Elsewhere, blake3: Option<String>) -> u32 {
        let next = self.manifest.blobs.len() as u32;
        let blob = *self.by_place.entry(place).or_insert(next);
        if blob == next {
            let (file, base) = match place {
                Elsewhere::File(place) => (Some(place), None),
                Elsewhere::Base(place) => (None, Some(place)),
            };
            self.manifest.blobs.push(Blob { name: name.to_owned(), blake3, file, base });
        }
        blob
    }

    /// Adds the serialised value of a copied field.
    pub(crate) fn copy(&mut self, path: &str, value: Vec<u8>) {
        let lent = self.base.as_mut().and_then(|base| {
            let blob = base.take_copy(&value)?;
            Some(base.arena().lend(blob))
        });
        if let Some(blob) = lent.and_then(|lent| self.lent(&copied(path), lent).ok()) {
            return self.manifest.copies.push(CopyEntry { path: path.to_owned(), blob });
        }
        let len = value.len();
        let descriptor = Descriptor { name: copied(path), dtype: DType::U8, shape: vec![len], param: None, len };
        let blob = self.blob(descriptor, Arc::new(Value(Bytes::from_bytes_vec(value))), None);
        self.manifest.copies.push(CopyEntry { path: path.to_owned(), blob });
    }

    pub(crate) fn flag(&mut self, path: String, enabled: bool) {
        self.manifest.flags.push(FlagEntry { path, enabled });
    }

    pub(crate) fn structure(&mut self, what: String) {
        self.manifest.structure.push(what);
    }

    /// Writes the container into a new memfd, seals it and opens the arena.
    ///
    /// # Errors
    /// If the kernel refuses the memory, or a tensor cannot be read.
    pub(crate) fn seal(self, tell: &mut dyn FnMut(Progress)) -> Result<Arena, ArenaError> {
        crate::os::fork::adopt();
        let mut plan = self.plan()?;
        let len = plan.frame.len;
        let system = |(call, error): (&'static str, std::io::Error)| ArenaError::system(call, len, error);
        let fd = memfd::create(super::MEMFD, len).map_err(system)?;
        plan.write(&fd, tell, &|error| limits::explained("pwrite", len, error))?;
        let fd = memfd::seal(fd).map_err(|error| system(("fcntl(F_ADD_SEALS)", error)))?;
        let container = Region::sealed(fd)?;
        container.mark_verified();
        Arena::from_regions(std::iter::once(container).chain(plan.borrowed).collect())
    }

    /// Writes the container into a new, empty file.
    ///
    /// # Errors
    /// If the file system refuses the bytes, or a tensor cannot be read.
    pub(crate) fn write_file(self, file: impl AsFd + Sync, tell: &mut dyn FnMut(Progress)) -> Result<(), ArenaError> {
        let mut plan = self.plan()?;
        let len = plan.frame.len;
        limits::may_write(len)
            .and_then(|()| Ok(rustix::fs::ftruncate(&file, len)?))
            .map_err(|error| ArenaError::system("ftruncate", len, error))?;
        plan.write(file, tell, &io::Error::to_string)
    }

    pub(super) fn plan(mut self) -> Result<Plan, ArenaError> {
        self.manifest.fingerprint = Manifest::fingerprint(&self.manifest.pipeline, &self.manifest.tensors);
        within("the tensors and copied fields of the pipeline", self.stored.len(), MAX_TENSOR_COUNT)?;
        let mut plan = Plan {
            frame: ContainerLayout { head: Vec::new(), offsets: Vec::new(), len: 0 },
            manifest: self.manifest,
            descriptors: Vec::with_capacity(self.stored.len()),
            sources: Vec::with_capacity(self.stored.len()),
            borrowed: self.files.into_iter().chain(self.bases).collect(),
        };
        for stored in self.stored {
            plan.descriptors.push(stored.descriptor);
            plan.sources.push((stored.blob, stored.source));
        }
        plan.frame = plan.frame()?;
        Ok(plan)
    }
}

/// The layout of an arena to be written, and the sources of its bytes.
pub(super) struct Plan {
    pub(super) frame: ContainerLayout,
    pub(super) manifest: Manifest,
    pub(super) descriptors: Vec<Descriptor>,
    /// For each descriptor, the index of its blob and the source of its bytes.
    pub(super) sources: Vec<(u32, Arc<dyn BlobSource>)>,
    /// The files and the bases.
    pub(super) borrowed: Vec<Arc<Region>>,
}

impl Plan {
    pub(super) fn frame(&self) -> Result<ContainerLayout, ArenaError> {
        let failed = |reason: String| ArenaError::Write { entry: self.manifest.pipeline.clone(), reason };
        let manifest = serde_json::to_string(&self.manifest).map_err(|error| failed(error.to_string()))?;
        let checksum = blake3::hash(manifest.as_bytes()).to_hex();
        let texts = [(MANIFEST_KEY, manifest.as_str()), (CHECKSUM_KEY, checksum.as_str())];
        ContainerLayout::plan(&self.descriptors, &texts).map_err(|found| ArenaError::TooLarge {
            what: "the bytes of the table of contents".to_owned(),
            found: found as u64,
            limit: MAX_METADATA_SIZE.into(),
        })
    }

    /// Copies all tensors, then writes the head. `explain` formats a write error: for a memfd the
    /// cause is a lack of memory, for a file a lack of disk space.
    fn write(
        &mut self,
        target: impl AsFd + Sync,
        tell: &mut dyn FnMut(Progress),
        explain: &dyn Fn(&io::Error) -> String,
    ) -> Result<(), ArenaError> {
        let total = self.descriptors.iter().map(|descriptor| descriptor.len as u64).sum();
        let mut meter = ProgressReporter::new(total, tell);
        // Ranges of files, in the order of the files.
        let mut ranges = Vec::new();
        for (at, (_, source)) in self.sources.iter().enumerate() {
            if let Some((file, from)) = source.range() {
                ranges.push((at, FileRange { file, from, len: source.len() as u64, to: self.frame.offsets[at] }));
            }
        }
        ranges.sort_by_key(|(_, range)| (range.file.as_raw_fd(), range.from));
        let (of_ranges, ranges): (Vec<usize>, Vec<_>) = ranges.into_iter().unzip();
        let failed = |at: usize, reason| ArenaError::Write { entry: self.descriptors[at].name.clone(), reason };
        let copied = copy_ranges(&ranges, Some(target.as_fd()), &mut meter).map_err(|(range, error)| {
            let reason = match error {
                RangeError::Read(error) => error.to_string(),
                RangeError::Write(error) => explain(&error),
            };
            failed(of_ranges[range], reason)
        })?;
        let mut hashes = vec![None; self.sources.len()];
        of_ranges.into_iter().zip(copied).for_each(|(at, hash)| hashes[at] = Some(hash));
        for (at, (blob, source)) in self.sources.iter().enumerate() {
            let hash = match hashes[at] {
                Some(hash) => hash,
                None => copy(&**source, &target, self.frame.offsets[at], &mut meter, explain)
                    .map_err(|reason| failed(at, reason))?,
            };
            if let Some(expected) = source.checksum() {
                self.manifest.blobs[*blob as usize].check(expected, hash)?;
            }
            self.manifest.blobs[*blob as usize].blake3 = Some(hash.to_hex().to_string());
        }
        // The head has the same size as before, since all checksums have the same length.
        let frame = self.frame()?;
        debug_assert_eq!((frame.head.len(), frame.len), (self.frame.head.len(), self.frame.len));
        write_at(&target, &frame.head, 0).map_err(|error| ArenaError::System {
            call: "pwrite".to_owned(),
            bytes: frame.len,
            reason: explain(&error),
        })
    }
}

/// Returns a container of these tensors with this text as its manifest and the matching checksum,
/// for fuzz targets.
pub(crate) fn sealed_container(blobs: Vec<burn_pack::Tensor>, manifest: &str) -> Result<burn::tensor::Bytes, String> {
    let checksum = blake3::hash(manifest.as_bytes()).to_hex();
    let writer = burn_pack::Writer::new(blobs);
    let writer = writer.with_metadata(MANIFEST_KEY, manifest).with_metadata(CHECKSUM_KEY, &checksum);
    writer.into_bytes().map_err(|error| error.to_string())
}

/// Checks a limit of burnpack before anything is written, since its reader rejects larger
/// containers.
fn within(what: &str, found: usize, limit: usize) -> Result<(), ArenaError> {
    if found <= limit {
        Ok(())
    } else {
        Err(ArenaError::TooLarge { what: what.to_owned(), found: found as u64, limit: limit as u64 })
    }
}

#[cfg(test)]
#[path = "builder_tests.rs"]
mod tests;
