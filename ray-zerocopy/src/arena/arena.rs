//! An open arena: a mapped block of memory whose table of contents has been checked.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

use burn::tensor::{AllocationProperty, Bytes};
use serde::{Deserialize, Serialize};

use super::index::{BlobLocation, Index, read_index};
use super::io::{CHUNK, Progress, ProgressReporter};
use super::manifest::{ArenaId, Manifest};
use super::memory;
use super::memory::policy::MemoryPolicy;
use super::memory::status::MemoryStatus;
#[cfg(feature = "ray")]
use super::region::Origin;
use super::region::Stamp;
use super::region::{Backing, Region};
use super::tensor::SharedTensor;
use crate::error::arena::ArenaError;
use crate::os::sync::Mutex;

/// A sealed, read-only block of memory with the weights of a pipeline. Cheap to clone: clones share the mapping.
///
/// The memory stays mapped as long as an `Arena`, or a tensor that borrows from it, lives.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
/// # use ray_zerocopy::{Pipeline, share};
/// #[derive(Pipeline)]
/// #[pipeline(init = Model::new)]
/// struct Model { head: Linear }
///
/// impl Model {
///     fn new(device: &Device) -> Self { Self { head: LinearConfig::new(64, 10).init(device) } }
/// }
///
/// let arena = share(&Model::new(&Device::flex()))?;
/// assert_eq!(arena.weight_bytes(), (64 * 10 + 10) * 4);
/// arena.verify()?;
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
#[derive(Clone)]
pub struct Arena(Arc<Inner>);

struct Inner {
    /// The container, then the files beside it.
    regions: Vec<Region>,
    /// The same memory, as the kernel knows it.
    memory: memory::Regions,
    read_index: Index,
}

/// How an arena is opened by a process that gets its file descriptors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Handle {
    regions: Vec<Backing>,
}

impl Arena {
    /// Opens the arena in a sealed memfd. Checks the seals, the manifest and the place of each entry, not the weights:
    /// [`verify`](Self::verify) does that.
    ///
    /// # Errors
    /// If a seal is missing, or the content is not an arena of this version.
    pub fn from_memfd(fd: OwnedFd) -> Result<Self, ArenaError> {
        Self::from_regions(vec![Region::sealed(fd)?])
    }

    /// Opens an arena whose regions are mapped: the container, then the files that it names.
    pub(super) fn from_regions(regions: Vec<Region>) -> Result<Self, ArenaError> {
        let container = regions.first().ok_or_else(|| ArenaError::NotAnArena("nothing came along".to_owned()))?;
        let read_index = read_index(&container.memory, container.memory.len() as u64)?;
        let files = &read_index.manifest.files;
        // A file is the one that was shared, and in the same state: a region's stamp was compared with the file.
        let fit = regions[1..].iter().zip(files).all(|(region, stamp)| region.is(stamp));
        match regions.len() == files.len() + 1 && fit {
            true => {
                let stored = regions.iter().any(|region| region.pages.is_none());
                let memory = memory::Regions::new(regions.iter().filter_map(|region| region.pages.clone()).collect());
                let memory = if stored { memory.of_a_store(regions[0].memory.len() as u64) } else { memory };
                Ok(Self(Arc::new(Inner { regions, memory, read_index })))
            }
            false => Err(ArenaError::NotAnArena(format!(
                "it borrows from {} files, and {} came along, or others",
                files.len(),
                regions.len() - 1
            ))),
        }
    }

    /// Compares every byte with the checksums that were stored when the arena was built.
    ///
    /// Weights that are borrowed from a file have no checksum: see [`borrowed_bytes`](Self::borrowed_bytes).
    ///
    /// # Errors
    /// Names the first entry whose bytes are not the ones that were shared.
    pub fn verify(&self) -> Result<(), ArenaError> {
        self.verify_with_progress(|_| ())
    }

    /// Compares every byte as [`verify`](Self::verify) does, and reports its progress in bytes.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_with_progress(&self, mut progress: impl FnMut(Progress)) -> Result<(), ArenaError> {
        crate::os::fork::adopt();
        let blobs = self.manifest().blobs.iter().zip(&self.0.read_index.places).enumerate();
        let checked = blobs.filter_map(|(at, (blob, place))| Some((at, blob, blob.blake3.as_ref()?, place.len)));
        let mut meter = ProgressReporter::new(checked.clone().map(|(.., len)| len as u64).sum(), &mut progress);
        for (at, blob, expected, _) in checked {
            let mut hasher = blake3::Hasher::new();
            self.slice(at as u32).chunks(8 * CHUNK).for_each(|chunk| {
                hasher.update_rayon(chunk);
                meter.add(chunk.len());
            });
            blob.check(expected, hasher.finalize())?;
        }
        Ok(())
    }

    /// The same arena, verified: by now, or by an earlier call for an arena of the same content that is still in use,
    /// which is then the one that is returned. So a process that gets an arena again and again maps and hashes it once.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub(crate) fn verified(self) -> Result<Self, ArenaError> {
        static VERIFIED: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
        let known = |verified: &[Weak<Inner>]| {
            verified.iter().filter_map(Weak::upgrade).find(|known| known.read_index.id == self.id()).map(Self)
        };
        {
            let mut verified = VERIFIED.lock();
            verified.retain(|known| known.strong_count() > 0);
            if let Some(known) = known(&verified) {
                return Ok(known);
            }
        }
        // Not under the lock. Rayon hashes, and a thread that waits for a part of that runs other work of its pool: if it is
        // another call of this function, it would wait for a lock that its own thread holds. Two threads may hash the same
        // arena at once, which costs time and nothing else.
        self.verify()?;
        let mut verified = VERIFIED.lock();
        if let Some(known) = known(&verified) {
            return Ok(known);
        }
        verified.push(Arc::downgrade(&self.0));
        Ok(self)
    }

    /// The name of this arena's content.
    pub fn id(&self) -> ArenaId {
        self.0.read_index.id
    }

    /// The Rust type of the pipeline whose weights these are. Empty if it is none's: see
    /// [`Checkpoint::pack`](crate::Checkpoint::pack).
    pub fn pipeline(&self) -> &str {
        &self.manifest().pipeline
    }

    /// BLAKE3 over the pipeline's type and the paths, dtypes and shapes of its tensors, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.manifest().fingerprint
    }

    /// The size of the arena in bytes, with its table of contents and padding, and with what it borrows from files or from
    /// another arena.
    pub fn size_bytes(&self) -> u64 {
        let beside = self.0.read_index.places.iter().filter(|place| place.region > 0).map(|place| place.len as u64);
        self.0.regions[0].memory.len() as u64 + beside.sum::<u64>()
    }

    /// The bytes that the pipeline's tensors would take without sharing of tied and equal weights.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors().map(|tensor| tensor.bytes).sum()
    }

    /// The bytes that the tensors take in the arena, where tied and equal weights are stored once.
    pub fn stored_bytes(&self) -> u64 {
        let places = &self.0.read_index.places;
        let mut seen = vec![false; places.len()];
        self.manifest().tensors.iter().for_each(|tensor| seen[tensor.blob as usize] = true);
        places.iter().zip(seen).filter(|(_, tensor)| *tensor).map(|(place, _)| place.len as u64).sum()
    }

    /// The bytes of weights that are borrowed from files, through the page cache, and not in sealed memory. None, unless a
    /// [`Placement`](crate::arena::Placement) asks for it.
    pub fn borrowed_bytes(&self) -> u64 {
        let in_file = |place: &&BlobLocation| matches!(self.0.regions[place.region].backing, Backing::File(..));
        self.0.read_index.places.iter().filter(in_file).map(|place| place.len as u64).sum()
    }

    /// The files that weights are borrowed from. None, unless a [`Placement`](crate::arena::Placement) asks for it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.regions.iter().filter_map(|region| match &region.backing {
            Backing::File(stamp, _) => Some(stamp.path.as_path()),
            Backing::Sealed | Backing::Store => None,
        })
    }

    /// The paths of the shared tensors, `heads["fr"].2.weight`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.manifest().tensors.iter().map(|tensor| tensor.path.as_str())
    }

    /// What is shared: each tensor of the pipeline, with its place in it.
    pub fn tensors(&self) -> impl Iterator<Item = SharedTensor<'_>> {
        let container = match &self.0.regions[0].backing {
            Backing::File(stamp, _) => Some(stamp.path.as_path()),
            Backing::Sealed | Backing::Store => None,
        };
        self.0.read_index.tensors(container)
    }

    /// What is copied: the paths of the fields whose values every process has for itself, and their sizes in bytes,
    /// serialised.
    pub fn copied_fields(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.read_index.copied_fields()
    }

    /// Whether the byte at this address is in the arena.
    pub fn contains(&self, address: *const u8) -> bool {
        self.0.regions.iter().any(|region| region.memory.as_ptr_range().contains(&address))
    }

    /// Asks the kernel to treat the arena's memory by a policy, in this process, and says what came of it.
    ///
    /// For a process of its own. A wrapper does this for itself and its workers: see
    /// [`TaskWrapper::memory`](crate::TaskWrapper::memory) and [`ActorWrapper::memory`](crate::ActorWrapper::memory).
    ///
    /// What was asked for earlier stays, since nothing is undone. With [`HugePages::Now`](crate::memory::HugePages::Now) it
    /// takes some milliseconds for each MiB, with `prefault` and `lock` it takes the time to map all pages.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
    /// # use ray_zerocopy::{Pipeline, share};
    /// use ray_zerocopy::memory::{HugePages, MemoryPolicy};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(1024, 1024).init(device) } } }
    ///
    /// let arena = share(&Model::new(&Device::flex()))?;
    /// let outcome = arena.apply_policy(MemoryPolicy::default().huge_pages(HugePages::Now));
    /// println!("{outcome}");                  // huge pages: applied to 4.0 of 4.0 MiB
    /// assert!(outcome.huge_pages.bytes() == 4 << 20 || !outcome.huge_pages.why().is_empty());
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    pub fn apply_policy(&self, memory: MemoryPolicy) -> MemoryStatus {
        self.0.memory.apply(memory)
    }

    /// What came of the policies that this process has asked for, by the kernel's figures of this moment. So it says
    /// how far a thread in the background is.
    pub fn memory_status(&self) -> MemoryStatus {
        self.0.memory.outcome()
    }

    /// As [`apply_policy`](Self::apply_policy), where another process makes the huge pages.
    pub(crate) fn follow(&self, memory: MemoryPolicy) -> MemoryStatus {
        self.0.memory.follow(memory)
    }

    /// The memfd, or the file that was opened. It is open for reading only, and a memfd is sealed besides.
    ///
    /// None for an arena in Ray's object store, which is Ray's to hand out.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.regions[0].fd.as_ref().map(AsFd::as_fd)
    }

    /// Opens an arena in memory of an object store: all of it in one object.
    ///
    /// # Errors
    /// As [`from_memfd`](Self::from_memfd).
    #[cfg(feature = "ray")]
    pub(crate) fn from_store(memory: bytes::Bytes, origin: Option<Origin>) -> Result<Self, ArenaError> {
        Self::from_regions(vec![Region::store(memory, origin)])
    }

    /// What the engine has noted in whose store the arena lies.
    #[cfg(feature = "ray")]
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.0.regions[0].origin.as_ref()
    }

    /// The container, whole, if there is nothing beside it.
    #[cfg(feature = "ray")]
    pub(crate) fn container(&self) -> Option<&bytes::Bytes> {
        match &self.0.regions[..] {
            [container] => Some(&container.memory),
            _ => None,
        }
    }

    /// The same arena with everything in one container: itself, if it is so. What lies in files is nobody's to copy unasked.
    ///
    /// # Errors
    /// If there is no memory for what lies in another arena.
    #[cfg(feature = "ray")]
    pub(crate) fn in_one(&self) -> Result<Self, ArenaError> {
        match self.0.regions.len() > 1 && self.files().next().is_none() {
            true => self.rebuild()?.seal(&mut |_| ()),
            false => Ok(self.clone()),
        }
    }

    /// Whether the container is all there is.
    pub(super) fn is_whole(&self) -> bool {
        self.0.regions.len() == 1
    }

    /// What another arena needs to borrow from this one: its regions, and where each tensor is in them.
    ///
    /// # Errors
    /// If it lies in an object store, which hands nothing out to others.
    pub(super) fn lend(&self) -> Result<Vec<(OwnedFd, Backing, Stamp)>, ArenaError> {
        let lend = |region: &Region| {
            let fd = region.fd.as_ref().ok_or(ArenaError::InStore)?;
            let stamp = match &region.backing {
                Backing::File(stamp, _) => stamp.clone(),
                Backing::Sealed | Backing::Store => Stamp::of_memory(fd)?,
            };
            let fd = fd.try_clone().map_err(|error| ArenaError::system("dup", self.size_bytes(), error))?;
            Ok((fd, region.backing.clone(), stamp))
        };
        self.0.regions.iter().map(lend).collect()
    }

    /// Where a blob is, and its checksum if it has one.
    pub(super) fn blob(&self, blob: u32) -> (BlobLocation, Option<&str>) {
        (self.0.read_index.places[blob as usize], self.manifest().blobs[blob as usize].blake3.as_deref())
    }

    /// The bytes of the container.
    pub(super) fn whole(&self) -> &[u8] {
        &self.0.regions[0].memory
    }

    /// The same arena as one that can be handed to another process of this machine.
    ///
    /// # Errors
    /// If it lies in an object store.
    pub(crate) fn handed_over(self) -> Result<Self, ArenaError> {
        match self.fd() {
            Some(_) => Ok(self),
            None => Err(ArenaError::InStore),
        }
    }

    /// What another process has to know, beside the file descriptors, to open the same arena.
    pub(crate) fn handle(&self) -> Handle {
        Handle { regions: self.0.regions.iter().map(|region| region.backing.clone()).collect() }
    }

    /// The file descriptors that the handle is about, in its order.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.0.regions.iter().filter_map(|region| region.fd.as_ref()).map(AsFd::as_fd).collect()
    }

    /// Opens the arena that the parent process handed over. Its promises about files are relied on.
    ///
    /// # Errors
    /// As [`from_memfd`](Self::from_memfd), or if a file descriptor is missing.
    pub(crate) fn from_handle(handle: &Handle, fds: Vec<OwnedFd>) -> Result<Self, ArenaError> {
        Self::handed(handle, fds, Region::open)
    }

    /// Opens the arena that another process handed over in exchange for a serialised handle. The handle may come from anywhere, so a
    /// file is accepted only if other users cannot change it.
    ///
    /// # Errors
    /// As [`from_handle`](Self::from_handle), or if a file is not this user's or root's.
    pub(crate) fn from_ticket(handle: &Handle, fds: Vec<OwnedFd>) -> Result<Self, ArenaError> {
        Self::handed(handle, fds, Region::fetched)
    }

    fn handed(
        handle: &Handle,
        fds: Vec<OwnedFd>,
        open: fn(OwnedFd, &Backing) -> Result<Region, ArenaError>,
    ) -> Result<Self, ArenaError> {
        if fds.len() != handle.regions.len() {
            let (expected, found) = (handle.regions.len(), fds.len());
            return Err(ArenaError::NotAnArena(format!(
                "{expected} file descriptors were to come along, and {found} did"
            )));
        }
        let regions = fds.into_iter().zip(&handle.regions).map(|(fd, backing)| open(fd, backing));
        Self::from_regions(regions.collect::<Result<_, _>>()?)
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.0.read_index.manifest
    }

    /// Where the arena is in this process's memory: the start of each region.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = usize> {
        self.0.regions.iter().map(|region| region.memory.as_ptr() as usize)
    }

    /// The bytes of a blob, borrowed from the arena.
    pub(crate) fn slice(&self, blob: u32) -> bytes::Bytes {
        let place = self.0.read_index.places[blob as usize];
        self.0.regions[place.region].memory.slice(place.offset..place.offset + place.len)
    }

    /// The bytes of all blobs, borrowed from the arena, for somebody who might write to them: a page that is written to becomes this
    /// process's own, where that is possible, and the arena stays as it is.
    ///
    /// # Errors
    /// If the kernel refuses to map the memory once more.
    #[cfg(feature = "torchscript")]
    pub(crate) fn own_view(&self) -> Result<Vec<bytes::Bytes>, ArenaError> {
        let views = self.0.regions.iter().map(Region::own_view).collect::<Result<Vec<_>, _>>()?;
        let blob = |place: &BlobLocation| views[place.region].slice(place.offset..place.offset + place.len);
        Ok(self.0.read_index.places.iter().map(blob).collect())
    }

    /// The bytes of a blob as burn takes them, borrowed from the arena.
    pub(crate) fn borrow(&self, blob: u32) -> Bytes {
        // Not `File`, though some arenas are: of bytes that say so, burn's CUDA backend copies every tensor into pinned memory, however
        // large it is, because a file could still have to be read. It keeps that memory.
        Bytes::from_shared(self.slice(blob), AllocationProperty::Other)
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("id", &self.id())
            .field("pipeline", &self.pipeline())
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}
