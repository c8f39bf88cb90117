//! An open arena: mapped memory with a validated table of contents.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};

use burn::tensor::{AllocationProperty, Bytes};

use super::base;
use super::index::{BlobLocation, Index};
use super::io::{CHUNK, Progress, ProgressReporter};
use super::manifest::{ArenaId, Manifest};
use super::memory;
use super::memory::policy::MemoryPolicy;
use super::memory::status::MemoryStatus;
use super::region::{Backing, Region};
use super::replicas::ReplicaSet;
use super::tensor::SharedTensor;
use crate::error::arena::ArenaError;
use crate::os::sync::Mutex;

/// A sealed, read-only block of memory with the weights of a pipeline. Cheap to clone: clones share
/// the mapping.
///
/// The memory stays mapped as long as an `Arena`, or a tensor that borrows from it, exists.
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
pub struct Arena(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// The container, then the files and the containers of other arenas that it borrows from.
    pub(super) regions: Vec<Arc<Region>>,
    /// The pages of the regions, and the memory policies applied to them.
    pub(super) memory: memory::Regions,
    /// The copies on NUMA nodes.
    pub(super) replicas: ReplicaSet,
    read_index: Arc<Index>,
    /// Values that are dropped with the arena.
    guards: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// A handle that does not keep the arena.
pub(crate) struct WeakArena(Weak<Inner>);

impl WeakArena {
    /// Returns the arena, or `None` if its last handle has been dropped.
    pub(crate) fn upgrade(&self) -> Option<Arena> {
        self.0.upgrade().map(Arena)
    }

    /// Returns `true` if the last handle of the arena has been dropped.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Arena {
    /// Returns a handle that does not keep the arena.
    pub(crate) fn downgrade(&self) -> WeakArena {
        WeakArena(Arc::downgrade(&self.0))
    }

    /// Drops a value when the last handle of this arena is dropped.
    pub(crate) fn on_drop(&self, guard: impl Any + Send) {
        self.0.guards.lock().push(Box::new(guard));
    }

    /// Opens the arena in a sealed memfd. Checks the seals, the manifest and the location of each
    /// entry. The weights are checked by [`verify`](Self::verify).
    ///
    /// # Errors
    /// If a seal is missing, the content is not an arena of this version, or the arena is a
    /// [variant](Self::variant), which one memfd does not contain.
    pub fn from_memfd(fd: OwnedFd) -> Result<Self, ArenaError> {
        Self::from_regions(vec![Region::sealed(fd)?])
    }

    /// Opens an arena from mapped regions: the container, then those that its manifest names.
    pub(super) fn from_regions(regions: Vec<Arc<Region>>) -> Result<Self, ArenaError> {
        let container =
            regions.first().ok_or_else(|| ArenaError::NotAnArena("no file descriptor was received".to_owned()))?;
        let read_index = container.index()?;
        let Manifest { files, bases, .. } = &read_index.manifest;
        if regions.len() == 1 && !bases.is_empty() {
            return Err(base::needs_base(&read_index.manifest, read_index.id, None));
        }
        // A region's stamp was compared with its file when it was mapped. Here it is compared with
        // that of the manifest, so the file is the one that was shared, and unchanged.
        let fit = regions[1..].iter().zip(files).all(|(region, stamp)| region.is(stamp));
        if regions.len() != files.len() + bases.len() + 1 || !fit {
            return Err(ArenaError::NotAnArena(format!(
                "it borrows from {} files and {} arenas, which are not the {} that were received",
                files.len(),
                bases.len(),
                regions.len() - 1
            )));
        }
        for (number, (region, wanted)) in regions[1 + files.len()..].iter().zip(bases).enumerate() {
            let found = region.index()?;
            if found.id != wanted.0 {
                return Err(ArenaError::OtherBase {
                    variant: format!("arena {}", read_index.id),
                    expected: wanted.0.to_string(),
                    found: found.id.to_string(),
                });
            }
            base::lends(&read_index, 1 + files.len() + number, &found)?;
        }
        let stored = regions.iter().filter(|region| region.pages.is_none());
        let stored: u64 = stored.map(|region| region.memory.len() as u64).sum();
        let memory = memory::Regions::new(regions.iter().filter_map(|region| region.pages.clone()).collect());
        let memory = if stored > 0 { memory.of_a_store(stored) } else { memory };
        Ok(Self(Arc::new(Inner {
            regions,
            memory,
            replicas: ReplicaSet::default(),
            read_index,
            guards: Mutex::default(),
        })))
    }

    /// Compares every byte with the checksums that were stored when the arena was built.
    ///
    /// Weights that are borrowed from a file do not have a checksum, see
    /// [`borrowed_bytes`](Self::borrowed_bytes).
    ///
    /// # Errors
    /// If a checksum differs. The error names the first such entry.
    pub fn verify(&self) -> Result<(), ArenaError> {
        self.verify_with_progress(|_| ())
    }

    /// Does the same as [`verify`](Self::verify), and reports progress in bytes.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_with_progress(&self, mut progress: impl FnMut(Progress)) -> Result<(), ArenaError> {
        self.verify_regions(|_| true, &mut progress)
    }

    /// Verifies the blobs in the regions that are wanted.
    fn verify_regions(
        &self,
        wanted: impl Fn(&Arc<Region>) -> bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), ArenaError> {
        crate::os::fork::adopt();
        let wanted: Vec<bool> = self.0.regions.iter().map(wanted).collect();
        let blobs = self.manifest().blobs.iter().zip(&self.0.read_index.places).enumerate();
        let blobs = blobs.filter(|(_, (_, place))| wanted[place.region]);
        let checked = blobs.filter_map(|(at, (blob, place))| Some((at, blob, blob.blake3.as_ref()?, place.len)));
        let mut meter = ProgressReporter::new(checked.clone().map(|(.., len)| len as u64).sum(), progress);
        for (at, blob, expected, _) in checked {
            let mut hasher = blake3::Hasher::new();
            self.slice(at as u32).chunks(8 * CHUNK).for_each(|chunk| {
                hasher.update_rayon(chunk);
                meter.add(chunk.len());
            });
            blob.check(expected, hasher.finalize())?;
        }
        if wanted[0] {
            self.0.regions[0].mark_verified();
        }
        Ok(())
    }

    /// [Verifies](Self::verify) the arena, except what this process has verified or made: the arena
    /// itself, or a base.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub(crate) fn ensure_verified(&self) -> Result<(), ArenaError> {
        self.verify_regions(|region| !region.is_verified(), &mut |_| ())
    }

    /// Verifies the arena, and returns it. If an arena of the same content has been verified and is
    /// still in use, returns that one instead. So a process that receives an arena repeatedly maps
    /// and hashes it once, and the base of several variants too.
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
        // The lock is not held here. Hashing runs on rayon, and a thread that waits for rayon runs
        // other work of its pool. If that work calls this function, it would wait for a lock that
        // its own thread holds. Without the lock, two threads may hash the same arena at once,
        // which only costs time.
        self.ensure_verified()?;
        let mut verified = VERIFIED.lock();
        if let Some(known) = known(&verified) {
            return Ok(known);
        }
        verified.push(Arc::downgrade(&self.0));
        Ok(self)
    }

    /// The id of this arena's content.
    pub fn id(&self) -> ArenaId {
        self.0.read_index.id
    }

    /// The Rust type of the pipeline that was shared. Empty for a packed checkpoint, see
    /// [`Checkpoint::pack`](crate::Checkpoint::pack).
    pub fn pipeline(&self) -> &str {
        &self.manifest().pipeline
    }

    /// BLAKE3 over the pipeline's type and the paths, dtypes and shapes of its tensors, in
    /// hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.manifest().fingerprint
    }

    /// The size of the arena in bytes: its table of contents, tensors and padding, and the bytes
    /// that it borrows from files or from other arenas. [`own_bytes`](Self::own_bytes) leaves the latter
    /// out.
    pub fn size_bytes(&self) -> u64 {
        let beside = self.0.read_index.places.iter().filter(|place| place.region > 0).map(|place| place.len as u64);
        self.0.regions[0].memory.len() as u64 + beside.sum::<u64>()
    }

    /// The total size of the pipeline's tensors in bytes, with tied and equal weights counted each
    /// time.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors().map(|tensor| tensor.bytes).sum()
    }

    /// The total size of the tensors in the arena in bytes, where tied and equal weights are stored
    /// once.
    pub fn stored_bytes(&self) -> u64 {
        let places = &self.0.read_index.places;
        let mut seen = vec![false; places.len()];
        self.manifest().tensors.iter().for_each(|tensor| seen[tensor.blob as usize] = true);
        places.iter().zip(seen).filter(|(_, tensor)| *tensor).map(|(place, _)| place.len as u64).sum()
    }

    /// The total size in bytes of the weights that are borrowed from files, through the page cache,
    /// instead of being in sealed memory. 0, unless a [`Placement`](crate::arena::Placement)
    /// requests it. [`bases`](Self::bases) tells what is borrowed from other arenas.
    pub fn borrowed_bytes(&self) -> u64 {
        let in_file = |place: &&BlobLocation| matches!(self.0.regions[place.region].backing, Backing::File(..));
        self.0.read_index.places.iter().filter(in_file).map(|place| place.len as u64).sum()
    }

    /// The files that weights are borrowed from. Empty, unless a
    /// [`Placement`](crate::arena::Placement) requests it.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.regions.iter().filter_map(|region| match &region.backing {
            Backing::File(stamp, _) => Some(stamp.path.as_path()),
            Backing::Sealed | Backing::Store => None,
        })
    }

    /// The paths of the shared tensors, such as `heads["fr"].2.weight`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.manifest().tensors.iter().map(|tensor| tensor.path.as_str())
    }

    /// The shared tensors, each with its path in the pipeline.
    pub fn tensors(&self) -> impl Iterator<Item = SharedTensor<'_>> {
        self.0.read_index.tensors(|region| match &self.0.regions[region].backing {
            Backing::File(stamp, _) => Some(stamp.path.as_path()),
            Backing::Sealed | Backing::Store => None,
        })
    }

    /// The copied fields, of which every process has its own value: their paths, and their
    /// serialised sizes in bytes.
    pub fn copied_fields(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.read_index.copied_fields()
    }

    /// Returns whether the byte at this address is in the arena.
    pub fn contains(&self, address: *const u8) -> bool {
        self.0.regions.iter().any(|region| region.memory.as_ptr_range().contains(&address))
    }

    /// Applies a memory policy to the arena in this process, and returns how far it was applied.
    ///
    /// For programs that use an arena without a wrapper. A wrapper applies its policy to its own
    /// process and to its workers: see [`TaskWrapper::memory`](crate::TaskWrapper::memory) and
    /// [`ActorWrapper::memory`](crate::ActorWrapper::memory).
    ///
    /// Policies of earlier calls stay in effect. With
    /// [`HugePages::Now`](crate::memory::HugePages::Now) the call takes some milliseconds per MiB.
    /// With `prefault` and `lock` it takes the time to map all pages.
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
        self.with_replicas(self.0.memory.apply(memory))
    }

    /// Returns how far the policies that this process requested are applied, from the kernel's
    /// current figures. So it shows the progress of
    /// [`HugePages::Background`](crate::memory::HugePages::Background).
    pub fn memory_status(&self) -> MemoryStatus {
        self.with_replicas(self.0.memory.outcome())
    }

    /// Does the same as [`apply_policy`](Self::apply_policy) in a process that leaves the creation
    /// of huge pages to another one.
    pub(crate) fn follow(&self, memory: MemoryPolicy) -> MemoryStatus {
        self.0.memory.follow(memory)
    }

    /// The file descriptor of the sealed memfd, or of the file that was opened. It is read-only.
    ///
    /// `None` for an arena in Ray's object store, which only Ray can pass to other processes.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.regions[0].fd.as_ref().map(AsFd::as_fd)
    }

    /// Returns whether the container is the whole arena.
    pub(super) fn is_whole(&self) -> bool {
        self.0.regions.len() == 1
    }

    /// Returns the container, then what it borrows from.
    pub(super) fn regions(&self) -> &[Arc<Region>] {
        &self.0.regions
    }

    /// Returns the table of contents.
    pub(super) fn index(&self) -> &Index {
        &self.0.read_index
    }

    /// Returns the location of each blob.
    pub(super) fn places(&self) -> &[BlobLocation] {
        &self.0.read_index.places
    }

    /// The bytes of the container.
    pub(super) fn whole(&self) -> &[u8] {
        &self.0.regions[0].memory
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.0.read_index.manifest
    }

    /// Returns the address of each region in this process.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = usize> {
        self.0.regions.iter().map(|region| region.memory.as_ptr() as usize)
    }

    /// Returns the bytes of a blob, borrowed from the arena.
    pub(crate) fn slice(&self, blob: u32) -> bytes::Bytes {
        let place = self.0.read_index.places[blob as usize];
        self.0.regions[place.region].memory.slice(place.offset..place.offset + place.len)
    }

    /// Returns the bytes of all blobs, mapped copy-on-write, for code that may write to them: a
    /// page that is written to is copied for this process, and the arena does not change. The
    /// memory of an object store is borrowed as it is.
    ///
    /// # Errors
    /// If the kernel refuses the second mapping.
    #[cfg(feature = "torchscript")]
    pub(crate) fn own_view(&self) -> Result<Vec<bytes::Bytes>, ArenaError> {
        let views = self.0.regions.iter().map(|region| region.own_view()).collect::<Result<Vec<_>, _>>()?;
        let blob = |place: &BlobLocation| views[place.region].slice(place.offset..place.offset + place.len);
        Ok(self.0.read_index.places.iter().map(blob).collect())
    }

    /// Returns the bytes of a blob as burn's [`Bytes`], borrowed from the arena.
    pub(crate) fn borrow(&self, blob: u32) -> Bytes {
        // Not `AllocationProperty::File`, even if the arena is a file. For that property, burn's
        // CUDA backend copies every tensor, of any size, into pinned memory, since the file may not
        // have been read yet. It does not free that memory.
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
