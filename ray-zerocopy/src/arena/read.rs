//! Opening an arena: every claim of its manifest is checked before a byte is lent.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use burn::tensor::{AllocationProperty, Bytes, DType};
use burn_pack::{Reader, TENSOR_ALIGNMENT};
use rustix::fs::fstat;
use serde::{Deserialize, Serialize};

use super::build::{CHECKSUM_KEY, MANIFEST_KEY};
use super::manifest::FORMAT;
use super::memory::{Memory, MemoryOutcome, Regions};
use super::sys::{self, Mapping, SEALS};
use super::{ArenaError, ArenaId, Manifest, TensorKind};

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
    fd: OwnedFd,
    memory: bytes::Bytes,
    /// The same memory, as the kernel knows it.
    regions: Regions,
    manifest: Manifest,
    /// Offset and length of each blob.
    blobs: Vec<(usize, usize)>,
    id: ArenaId,
    inode: u64,
}

/// How an arena is opened by a process that gets its file descriptors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Handle {}

impl Arena {
    /// Opens the arena in a sealed memfd. Checks the seals, the manifest and the place of each entry, not the weights:
    /// [`verify`](Self::verify) does that.
    ///
    /// # Errors
    /// If a seal is missing, or the content is not an arena of this version.
    pub fn from_memfd(fd: OwnedFd) -> Result<Self, ArenaError> {
        let missing = match sys::sealed(&fd) {
            Ok(found) => SEALS.difference(found),
            Err(_) => SEALS,
        };
        if !missing.is_empty() {
            let missing = missing.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
            return Err(ArenaError::NotSealed { missing });
        }
        let stat = fstat(&fd).map_err(|errno| system("fstat", 0, errno.into()))?;
        let len = stat.st_size.max(0) as u64;
        if len == 0 {
            return Err(ArenaError::NotAnArena("it is empty".to_owned()));
        }
        let map = Mapping::open(&fd, len as usize).map_err(|error| system("mmap", len, error))?;
        let regions = Regions::new(vec![map.pages()]);
        let memory = bytes::Bytes::from_owner(map);
        let (manifest, blobs, id) = contents(&memory)?;
        Ok(Self(Arc::new(Inner { fd, memory, regions, manifest, blobs, id, inode: stat.st_ino })))
    }

    /// Compares every byte with the checksums that were stored when the arena was built.
    ///
    /// # Errors
    /// Names the first entry whose bytes are not the ones that were shared.
    pub fn verify(&self) -> Result<(), ArenaError> {
        for (index, blob) in self.0.manifest.blobs.iter().enumerate() {
            let found = blake3::hash(&self.slice(index as u32)).to_hex().to_string();
            if found != blob.blake3 {
                return Err(ArenaError::BlobChecksum {
                    entry: blob.name.clone(),
                    expected: blob.blake3.clone(),
                    found,
                });
            }
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
        let mut verified = VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
        verified.retain(|known| known.strong_count() > 0);
        if let Some(known) = verified.iter().filter_map(Weak::upgrade).find(|known| known.id == self.id()) {
            return Ok(Self(known));
        }
        self.verify()?;
        verified.push(Arc::downgrade(&self.0));
        Ok(self)
    }

    /// The name of this arena's content.
    pub fn id(&self) -> ArenaId {
        self.0.id
    }

    /// The Rust type of the pipeline whose weights these are.
    pub fn pipeline(&self) -> &str {
        &self.0.manifest.pipeline
    }

    /// BLAKE3 over the pipeline's type and the paths, dtypes and shapes of its tensors, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.0.manifest.fingerprint
    }

    /// The size of the arena in bytes, with its table of contents and padding.
    pub fn len(&self) -> u64 {
        self.0.memory.len() as u64
    }

    /// Never: an arena has at least its manifest.
    pub fn is_empty(&self) -> bool {
        self.0.memory.is_empty()
    }

    /// The bytes that the pipeline's tensors would take without sharing of tied and equal weights.
    pub fn weight_bytes(&self) -> u64 {
        self.0.manifest.tensors.iter().map(|tensor| self.0.blobs[tensor.blob as usize].1 as u64).sum()
    }

    /// The bytes that the tensors take in the arena, where tied and equal weights are stored once.
    pub fn stored_bytes(&self) -> u64 {
        let mut seen = vec![false; self.0.blobs.len()];
        self.0.manifest.tensors.iter().for_each(|tensor| seen[tensor.blob as usize] = true);
        self.0.blobs.iter().zip(seen).filter(|(_, tensor)| *tensor).map(|((_, len), _)| *len as u64).sum()
    }

    /// The paths of the shared tensors, `heads["fr"].2.weight`.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.manifest.tensors.iter().map(|tensor| tensor.path.as_str())
    }

    /// What is shared: each tensor of the pipeline, with its place in it.
    pub fn tensors(&self) -> impl Iterator<Item = SharedTensor<'_>> {
        self.0.manifest.tensors.iter().map(|entry| SharedTensor {
            path: &entry.path,
            kind: entry.kind,
            dtype: entry.dtype,
            shape: &entry.shape,
            bytes: self.0.blobs[entry.blob as usize].1 as u64,
        })
    }

    /// What is copied: the paths of the fields whose values every process has for itself, and their sizes in bytes,
    /// serialised.
    pub fn copied_fields(&self) -> impl Iterator<Item = (&str, u64)> {
        let copies = self.0.manifest.copies.iter();
        copies.map(|entry| (entry.path.as_str(), self.0.blobs[entry.blob as usize].1 as u64))
    }

    /// Whether the byte at this address is in the arena.
    pub fn contains(&self, address: *const u8) -> bool {
        self.0.memory.as_ptr_range().contains(&address)
    }

    /// Asks the kernel to treat the arena's memory by a policy, in this process, and says what came of it.
    ///
    /// For a process of its own. A wrapper does this for itself and its workers: see
    /// [`TaskWrapper::memory`](crate::TaskWrapper::memory) and [`ActorWrapper::memory`](crate::ActorWrapper::memory).
    ///
    /// What was asked for earlier stays, since nothing is undone. With [`HugePages::Now`](crate::HugePages::Now) it
    /// takes some milliseconds for each MiB, with `prefault` and `lock` it takes the time to map all pages.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
    /// # use ray_zerocopy::{Pipeline, share};
    /// use ray_zerocopy::{HugePages, Memory};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(1024, 1024).init(device) } } }
    ///
    /// let arena = share(&Model::new(&Device::flex()))?;
    /// let outcome = arena.apply(Memory::default().huge_pages(HugePages::Now));
    /// println!("{outcome}");                  // huge pages: applied to 4.0 of 4.0 MiB
    /// assert!(outcome.huge_pages.bytes() == 4 << 20 || !outcome.huge_pages.why().is_empty());
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    pub fn apply(&self, memory: Memory) -> MemoryOutcome {
        self.0.regions.apply(memory)
    }

    /// What came of the policies that this process has asked for, by the kernel's figures of this moment. So it says
    /// how far a thread in the background is.
    pub fn memory(&self) -> MemoryOutcome {
        self.0.regions.outcome()
    }

    /// As [`apply`](Self::apply), where another process makes the huge pages.
    pub(crate) fn follow(&self, memory: Memory) -> MemoryOutcome {
        self.0.regions.follow(memory)
    }

    /// The memfd. Whoever gets it can read the arena and cannot change it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }

    /// What another process has to know, beside the file descriptors, to open the same arena.
    pub(crate) fn handle(&self) -> Handle {
        Handle {}
    }

    /// The file descriptors that the handle is about, in its order.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.fd()]
    }

    /// Opens what another process of this user handed over.
    ///
    /// # Errors
    /// As [`from_memfd`](Self::from_memfd), or if a file descriptor is missing.
    pub(crate) fn from_handle(_handle: &Handle, fds: Vec<OwnedFd>) -> Result<Self, ArenaError> {
        let fd = fds.into_iter().next();
        Self::from_memfd(fd.ok_or_else(|| ArenaError::NotAnArena("no memfd came along".to_owned()))?)
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Tells this arena's memory apart from all other in `/proc/<pid>/smaps`.
    pub(crate) fn inode(&self) -> u64 {
        self.0.inode
    }

    /// The bytes of a blob, borrowed from the arena.
    pub(crate) fn slice(&self, blob: u32) -> bytes::Bytes {
        let (offset, len) = self.0.blobs[blob as usize];
        self.0.memory.slice(offset..offset + len)
    }

    /// The bytes of a blob as burn takes them, borrowed from the arena.
    pub(crate) fn borrow(&self, blob: u32) -> Bytes {
        Bytes::from_shared(self.slice(blob), AllocationProperty::File)
    }
}

/// A tensor in an arena.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharedTensor<'a> {
    /// Its path in the pipeline, `heads["fr"].2.weight`.
    pub path: &'a str,
    /// What it holds.
    pub kind: TensorKind,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape, as it is stored.
    pub shape: &'a [usize],
    /// Its size. Tied and equal tensors have the same bytes, which are in the arena once.
    pub bytes: u64,
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("id", &self.id())
            .field("pipeline", &self.pipeline())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

fn system(call: &str, bytes: u64, error: std::io::Error) -> ArenaError {
    ArenaError::System { call: call.to_owned(), bytes, reason: error.to_string() }
}

type Contents = (Manifest, Vec<(usize, usize)>, ArenaId);

fn contents(memory: &bytes::Bytes) -> Result<Contents, ArenaError> {
    let reader = Reader::from_bytes(Bytes::from_shared(memory.clone(), AllocationProperty::File))
        .map_err(|error| ArenaError::NotAnArena(error.to_string()))?;
    let (Some(text), Some(expected)) = (reader.metadata().get(MANIFEST_KEY), reader.metadata().get(CHECKSUM_KEY))
    else {
        return Err(ArenaError::NotAnArena("it is a burnpack container without a manifest of ray-zerocopy".to_owned()));
    };
    let hash = blake3::hash(text.as_bytes());
    if hash.to_hex().as_str() != expected {
        return Err(ArenaError::ManifestChecksum { expected: expected.clone(), found: hash.to_hex().to_string() });
    }
    let manifest = parse(text)?;
    let blobs = locate(&manifest, reader, memory)?;
    check_entries(&manifest, &blobs)?;
    Ok((manifest, blobs, ArenaId(*hash.as_bytes())))
}

fn parse(text: &str) -> Result<Manifest, ArenaError> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    // Another version's manifest need not have this one's fields.
    let (found, manifest) = match serde_json::from_str::<Manifest>(text) {
        Ok(manifest) => (manifest.format, Ok(manifest)),
        Err(error) => {
            let unreadable = ArenaError::NotAnArena(format!("its manifest is unreadable: {error}"));
            let version = serde_json::from_str(text).map(|Version { format }| format);
            (version.unwrap_or(FORMAT), Err(unreadable))
        }
    };
    match found == FORMAT {
        true => manifest,
        false => Err(ArenaError::Format { found: found.to_string(), expected: FORMAT.to_string() }),
    }
}

/// Where the container has each blob of the manifest.
fn locate(manifest: &Manifest, reader: Reader, memory: &bytes::Bytes) -> Result<Vec<(usize, usize)>, ArenaError> {
    let base = memory.as_ptr() as usize;
    let tensors = reader.into_tensors().map_err(|error| ArenaError::NotAnArena(error.to_string()))?;
    let mut places = HashMap::with_capacity(tensors.len());
    for mut tensor in tensors {
        let name = std::mem::take(&mut tensor.name);
        let view = tensor.into_bytes().map_err(|error| bad(&name, error.to_string()))?;
        // A tensor without elements has no address of its own.
        let offset = if view.is_empty() { 0 } else { (view.as_ptr() as usize).wrapping_sub(base) };
        if view.len() > memory.len() || offset > memory.len() - view.len() {
            return Err(bad(&name, "it lies outside of the arena"));
        }
        // flex reads a misaligned weight in place, and panics: better here than in a forward pass.
        if offset % TENSOR_ALIGNMENT as usize != 0 {
            return Err(bad(&name, format!("it starts at byte {offset}, not at a multiple of {TENSOR_ALIGNMENT}")));
        }
        places.insert(name, (offset, view.len()));
    }
    manifest
        .blobs
        .iter()
        .map(|blob| places.get(&blob.name).copied().ok_or_else(|| bad(&blob.name, "the container does not have it")))
        .collect()
}

fn check_entries(manifest: &Manifest, blobs: &[(usize, usize)]) -> Result<(), ArenaError> {
    for entry in &manifest.tensors {
        let Some((_, len)) = blobs.get(entry.blob as usize) else {
            return Err(bad(&entry.path, format!("it names blob {}, and there are {}", entry.blob, blobs.len())));
        };
        let fits = match entry.dtype {
            DType::Bool(_) => TensorKind::Bool,
            dtype if dtype.is_float() || matches!(dtype, DType::QFloat(_)) => TensorKind::Float,
            _ => TensorKind::Int,
        };
        // Such a tensor could be made, and would panic in the first operation.
        if entry.kind != fits {
            return Err(bad(
                &entry.path,
                format!("a tensor of kind {} has no elements of {:?}", entry.kind, entry.dtype),
            ));
        }
        let elements = entry.shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
        let expected = elements.and_then(|elements| elements.checked_mul(entry.dtype.size()));
        // Quantised data has its scales behind the values: its length is not a product of shape and dtype.
        if !matches!(entry.dtype, DType::QFloat(_)) && expected != Some(*len) {
            return Err(bad(
                &entry.path,
                format!("{:?} of shape {:?} does not fit its {len} bytes", entry.dtype, entry.shape),
            ));
        }
    }
    match manifest.copies.iter().find(|entry| entry.blob as usize >= blobs.len()) {
        Some(entry) => Err(bad(&entry.path, format!("it names blob {}, and there are {}", entry.blob, blobs.len()))),
        None if Manifest::fingerprint(&manifest.pipeline, &manifest.tensors) != manifest.fingerprint => {
            Err(bad(&manifest.pipeline, "the schema fingerprint is not that of its tensors"))
        }
        None => Ok(()),
    }
}

fn bad(entry: &str, reason: impl Into<String>) -> ArenaError {
    ArenaError::BadEntry { entry: entry.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::super::{Manifest, TensorEntry};
    use super::*;

    fn refused(kind: TensorKind, dtype: DType) -> Option<String> {
        let tensors = vec![TensorEntry { path: "a".to_owned(), blob: 0, kind, dtype, shape: vec![2], param: None }];
        let manifest = Manifest {
            format: FORMAT,
            pipeline: "P".to_owned(),
            fingerprint: Manifest::fingerprint("P", &tensors),
            tensors,
            copies: Vec::new(),
            flags: Vec::new(),
            structure: Vec::new(),
            blobs: Vec::new(),
        };
        check_entries(&manifest, &[(0, 2 * dtype.size())]).err().map(|error| error.to_string())
    }

    #[test]
    fn a_dtype_that_its_kind_does_not_have_is_refused() {
        assert_eq!(refused(TensorKind::Float, DType::F16), None);
        assert_eq!(refused(TensorKind::Int, DType::U8), None);
        let error = refused(TensorKind::Float, DType::I32).unwrap_or_default();
        assert_eq!(error, "entry `a` of the arena is corrupted: a tensor of kind float has no elements of I32");
        assert!(refused(TensorKind::Bool, DType::U8).is_some());
        assert!(refused(TensorKind::Int, DType::F32).is_some());
    }
}
