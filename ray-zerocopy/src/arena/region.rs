//! A region: one contiguous mapping of an arena, of a sealed memfd, a file or an object store.

#[cfg(feature = "ray")]
use std::any::Any;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use rustix::fs::{OFlags, Stat, fstat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::index::{Index, read_index};
use super::node_copy::WeakNodeRegion;
use crate::error::arena::ArenaError;
use crate::os::sync::Mutex;
use crate::os::sys::advice::Pages;
use crate::os::sys::mapping::FileUnchanged;
use crate::os::sys::mapping::Mapping;
use crate::os::sys::memfd;
use crate::os::sys::memfd::SEALS;

/// The kind of memory of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Backing {
    /// A sealed memfd, whose bytes cannot change.
    Sealed,
    /// A file. The caller has guaranteed that it does not change.
    File(Stamp, FileUnchanged),
    /// Memory of an object store, which passes it to processes itself.
    Store,
}

/// Identity and state of a file: path, size, device, inode and modification time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub path: PathBuf,
    pub len: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of an open file.
    ///
    /// # Errors
    /// If `fstat` fails.
    pub(crate) fn of(path: &Path, file: impl AsFd) -> Result<Self, ArenaError> {
        let stat = fstat(file).map_err(|errno| ArenaError::file(path, errno.into()))?;
        Ok(Self::from_stat(path, &stat))
    }

    fn from_stat(path: &Path, stat: &Stat) -> Self {
        Self {
            path: path.to_owned(),
            len: stat.st_size.max(0) as u64,
            device: stat.st_dev as _,
            inode: stat.st_ino,
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
        }
    }
}

/// Identifies memory of this machine as long as a process has it. The time stamp is that of the last
/// seal.
#[derive(PartialEq, Eq)]
struct MemoryKey {
    inode: (u64, u64),
    len: u64,
    changed: (i64, i64),
}

impl MemoryKey {
    fn of(stat: &Stat) -> Self {
        Self {
            inode: (stat.st_dev as _, stat.st_ino),
            len: stat.st_size.max(0) as u64,
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// A mapped region.
pub(super) struct Region {
    /// The mapped file. `None` if the mapping belongs to an object store.
    pub(super) fd: Option<OwnedFd>,
    pub(super) memory: bytes::Bytes,
    /// The mapping's pages, for `madvise` and `mlock`. `None` as for `fd`.
    pub(super) pages: Option<Pages>,
    pub(super) backing: Backing,
    /// The table of contents, if it is a container and was needed.
    index: OnceLock<Result<Arc<Index>, ArenaError>>,
    /// Whether this process has compared each blob of the container with its checksum, or has computed
    /// the checksums.
    is_verified: AtomicBool,
    /// The copies on NUMA nodes.
    pub(super) node_copies: Mutex<Vec<WeakNodeRegion>>,
    /// Set by an engine for a region in its object store.
    #[cfg(feature = "ray")]
    pub(super) origin: Option<Origin>,
}

/// An engine's data about a region in its object store. Opaque to the arena.
#[cfg(feature = "ray")]
pub(crate) type Origin = Arc<dyn Any + Send + Sync>;

impl Region {
    /// Maps a sealed memfd, or returns the mapping that this process has of it: arenas that borrow from
    /// the same base have one mapping of the base.
    ///
    /// # Errors
    /// If a seal is missing, the memfd is empty, or the kernel refuses the mapping.
    pub(super) fn sealed(fd: OwnedFd) -> Result<Arc<Self>, ArenaError> {
        static MAPPED: Mutex<Vec<(MemoryKey, Weak<Region>)>> = Mutex::new(Vec::new());

        let missing = match memfd::sealed(&fd) {
            Ok(found) => SEALS.difference(found),
            Err(_) => SEALS,
        };
        if !missing.is_empty() {
            let missing = missing.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
            return Err(ArenaError::NotSealed { missing });
        }
        let stat = fstat(&fd).map_err(|errno| ArenaError::system("fstat", 0, errno.into()))?;
        let len = stat.st_size.max(0) as u64;
        if len == 0 {
            return Err(ArenaError::NotAnArena("it is empty".to_owned()));
        }
        let key = MemoryKey::of(&stat);
        let mut mapped = MAPPED.lock();
        mapped.retain(|(_, region)| region.strong_count() > 0);
        let known = mapped.iter().find(|(known, _)| *known == key).and_then(|(_, region)| region.upgrade());
        if let Some(known) = known {
            return Ok(known);
        }
        // The descriptor that is kept, and passed to workers, is read-only.
        let fd = memfd::reader(fd);
        let map = Mapping::open(&fd, len as usize).map_err(|error| ArenaError::system("mmap", len, error))?;
        let region = Arc::new(Self::mapped(fd, map, Backing::Sealed));
        mapped.push((key, Arc::downgrade(&region)));
        Ok(region)
    }

    /// Maps a file.
    ///
    /// # Errors
    /// If the file does not match the stamp, is empty, or cannot be mapped.
    pub(super) fn file(fd: OwnedFd, stamp: Stamp, promise: FileUnchanged) -> Result<Arc<Self>, ArenaError> {
        if Stamp::of(&stamp.path, &fd)? != stamp {
            return Err(ArenaError::FileChanged { path: stamp.path.display().to_string() });
        }
        if stamp.len == 0 {
            return Err(ArenaError::NotAnArena(format!("{} is empty", stamp.path.display())));
        }
        let map =
            Mapping::file(&fd, stamp.len as usize, promise).map_err(|error| ArenaError::file(&stamp.path, error))?;
        Ok(Arc::new(Self::mapped(fd, map, Backing::File(stamp, promise))))
    }

    fn mapped(fd: OwnedFd, map: Mapping, backing: Backing) -> Self {
        let pages = Some(map.pages());
        Self {
            fd: Some(fd),
            pages,
            memory: bytes::Bytes::from_owner(map),
            backing,
            index: OnceLock::new(),
            is_verified: AtomicBool::new(false),
            node_copies: Mutex::default(),
            #[cfg(feature = "ray")]
            origin: None,
        }
    }

    /// Wraps memory of an object store.
    #[cfg(feature = "ray")]
    pub(super) fn store(memory: bytes::Bytes, origin: Option<Origin>) -> Arc<Self> {
        let (index, is_verified, node_copies) = Default::default();
        Arc::new(Self {
            fd: None,
            memory,
            pages: None,
            backing: Backing::Store,
            index,
            is_verified,
            node_copies,
            origin,
        })
    }

    /// Records that each blob of the container is that of its checksum.
    pub(super) fn mark_verified(&self) {
        self.is_verified.store(true, Ordering::Release);
    }

    /// Returns whether each blob of the container is known to be that of its checksum.
    pub(super) fn is_verified(&self) -> bool {
        self.is_verified.load(Ordering::Acquire)
    }

    /// Returns the table of contents of a container, which is read once for each mapping.
    ///
    /// # Errors
    /// If it is not a container, or not a valid one.
    pub(super) fn index(&self) -> Result<Arc<Index>, ArenaError> {
        let read = || read_index(&self.memory, self.memory.len() as u64).map(Arc::new);
        self.index.get_or_init(read).clone()
    }

    /// Maps the same memory copy-on-write, so that this process may write to its own view. Memory
    /// of an object store is returned as it is, read-only.
    ///
    /// # Errors
    /// If the kernel refuses the map.
    #[cfg(feature = "torchscript")]
    pub(super) fn own_view(&self) -> Result<bytes::Bytes, ArenaError> {
        let (Some(fd), Some(pages)) = (&self.fd, &self.pages) else { return Ok(self.memory.clone()) };
        let len = self.memory.len();
        let view = crate::os::sys::mapping::OwnView::of(pages, fd, len);
        Ok(bytes::Bytes::from_owner(view.map_err(|error| ArenaError::system("mmap", len as u64, error))?))
    }

    /// Returns whether this region is the file of the stamp.
    pub(super) fn is(&self, stamp: &Stamp) -> bool {
        matches!(&self.backing, Backing::File(found, _) if found == stamp)
    }

    /// Maps a region that was received in exchange for a serialised handle.
    ///
    /// The seals of a memfd can be checked. That a file does not change cannot be checked, and a
    /// handle may come from an untrusted source. So the file is opened here, by its path, and must
    /// not be writable by other users.
    pub(super) fn fetched(fd: OwnedFd, backing: &Backing) -> Result<Arc<Self>, ArenaError> {
        let Backing::File(stamp, promise) = backing else { return Self::open(fd, backing) };
        let (file, found) = open(&stamp.path)?;
        if found != *stamp {
            return Err(ArenaError::FileChanged { path: stamp.path.display().to_string() });
        }
        let stat = fstat(&file).map_err(|errno| ArenaError::file(&stamp.path, errno.into()))?;
        let others_may_write = stat.st_mode & 0o002 != 0;
        if ![0, geteuid().as_raw()].contains(&stat.st_uid) || others_may_write {
            let reason = format!(
                "a handle names it as a file to borrow weights from, but other users can change it: it belongs to user \
                 {}, and its mode is {:o}; share the pipeline in sealed memory, or open the file in this process",
                stat.st_uid,
                stat.st_mode & 0o777
            );
            return Err(ArenaError::file(&stamp.path, std::io::Error::other(reason)));
        }
        Self::file(file.into(), found, *promise)
    }

    pub(super) fn open(fd: OwnedFd, backing: &Backing) -> Result<Arc<Self>, ArenaError> {
        match backing {
            Backing::Sealed => Self::sealed(fd),
            Backing::File(stamp, promise) => Self::file(fd, stamp.clone(), *promise),
            Backing::Store => Err(ArenaError::InStore),
        }
    }
}

/// Opens a file for reading, and returns its stamp.
///
/// # Errors
/// If the file does not exist, is not a regular file, or may not be read. The error names the path.
pub(crate) fn open(path: &Path) -> Result<(File, Stamp), ArenaError> {
    // Without the flag, opening a FIFO blocks until a process writes to it. For a file it has no
    // effect.
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|error| ArenaError::file(path, error))?;
    let metadata = file.metadata().map_err(|error| ArenaError::file(path, error))?;
    if !metadata.is_file() {
        return Err(ArenaError::file(path, std::io::Error::other("it is not a file")));
    }
    // Absolute, since workers may have another working directory.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let stamp = Stamp::of(&path, &file)?;
    Ok((file, stamp))
}
