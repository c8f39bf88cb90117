//! A region: one run of memory that an arena lies in, a sealed memfd or a file.

#[cfg(feature = "ray")]
use std::any::Any;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
#[cfg(feature = "ray")]
use std::sync::Arc;

use rustix::fs::{OFlags, Stat, fstat};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::error::arena::ArenaError;
use crate::os::sys::advice::Pages;
use crate::os::sys::mapping::FileUnchanged;
use crate::os::sys::mapping::Mapping;
use crate::os::sys::memfd;
use crate::os::sys::memfd::SEALS;

/// What kind of memory a region is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Backing {
    /// A sealed memfd, which nobody can change.
    Sealed,
    /// A file, of which somebody has promised that nobody changes it.
    File(Stamp, FileUnchanged),
    /// Memory of an object store, which hands it out itself.
    Store,
}

/// Which file it was, and in which state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub path: PathBuf,
    pub len: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of sealed memory, which has no path. It is told from other memory of this machine by its inode.
    ///
    /// # Errors
    /// If the kernel does not know the file descriptor.
    pub(super) fn of_memory(memory: impl AsFd) -> Result<Self, ArenaError> {
        Self::of(Path::new(""), memory)
    }

    /// Whether it is of sealed memory, and not of a file.
    pub(super) fn is_memory(&self) -> bool {
        self.path.as_os_str().is_empty()
    }

    /// # Errors
    /// If the file cannot be looked at.
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

/// A mapped region.
pub(super) struct Region {
    /// What it is a map of; none if the map is somebody else's.
    pub(super) fd: Option<OwnedFd>,
    pub(super) memory: bytes::Bytes,
    /// The same memory, as the kernel knows it.
    pub(super) pages: Option<Pages>,
    pub(super) backing: Backing,
    /// What its owner needs to find it again.
    #[cfg(feature = "ray")]
    pub(super) origin: Option<Origin>,
}

/// What an engine notes on a region that lies in its store. The arena does not know what it is.
#[cfg(feature = "ray")]
pub(crate) type Origin = Arc<dyn Any + Send + Sync>;

impl Region {
    /// Maps a memfd, which has to be sealed.
    pub(super) fn sealed(fd: OwnedFd) -> Result<Self, ArenaError> {
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
        // What is kept, and handed to workers, can be read and nothing else.
        let fd = memfd::reader(fd);
        let map = Mapping::open(&fd, len as usize).map_err(|error| ArenaError::system("mmap", len, error))?;
        Ok(Self::mapped(fd, map, Backing::Sealed))
    }

    /// Maps a file, which has to be in the state that the stamp says.
    pub(super) fn file(fd: OwnedFd, stamp: Stamp, promise: FileUnchanged) -> Result<Self, ArenaError> {
        if Stamp::of(&stamp.path, &fd)? != stamp {
            return Err(ArenaError::FileChanged { path: stamp.path.display().to_string() });
        }
        if stamp.len == 0 {
            return Err(ArenaError::NotAnArena(format!("{} is empty", stamp.path.display())));
        }
        let map =
            Mapping::file(&fd, stamp.len as usize, promise).map_err(|error| ArenaError::file(&stamp.path, error))?;
        Ok(Self::mapped(fd, map, Backing::File(stamp, promise)))
    }

    fn mapped(fd: OwnedFd, map: Mapping, backing: Backing) -> Self {
        let pages = Some(map.pages());
        Self {
            fd: Some(fd),
            pages,
            memory: bytes::Bytes::from_owner(map),
            backing,
            #[cfg(feature = "ray")]
            origin: None,
        }
    }

    /// Memory of an object store.
    #[cfg(feature = "ray")]
    pub(super) fn store(memory: bytes::Bytes, origin: Option<Origin>) -> Self {
        Self { fd: None, memory, pages: None, backing: Backing::Store, origin }
    }

    /// The same memory, of which this process may write to its own view. Memory of an object store is as it is: nobody can.
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

    /// Whether this is what a stamp was taken of.
    pub(super) fn is(&self, stamp: &Stamp) -> bool {
        match (&self.backing, &self.fd) {
            (Backing::File(found, _), _) => found == stamp,
            (Backing::Sealed, Some(fd)) => Stamp::of_memory(fd).is_ok_and(|found| found == *stamp),
            _ => false,
        }
    }

    /// Maps a region that was handed over in exchange for a serialised handle.
    ///
    /// The seals of a memfd can be checked. That a file does not change is a promise, and a handle may come from anywhere. So the file is
    /// opened here, by its path, and has to be one that other users cannot write to.
    pub(super) fn fetched(fd: OwnedFd, backing: &Backing) -> Result<Self, ArenaError> {
        let Backing::File(stamp, promise) = backing else { return Self::open(fd, backing) };
        let (file, found) = open(&stamp.path)?;
        if found != *stamp {
            return Err(ArenaError::FileChanged { path: stamp.path.display().to_string() });
        }
        let stat = fstat(&file).map_err(|errno| ArenaError::file(&stamp.path, errno.into()))?;
        let others_may_write = stat.st_mode & 0o002 != 0;
        if ![0, geteuid().as_raw()].contains(&stat.st_uid) || others_may_write {
            let reason = format!(
                "a handle names it for weights to be borrowed from, and other users can change it: it belongs to user {}, and its \
                 mode is {:o}; share the pipeline in sealed memory, or open the file here",
                stat.st_uid,
                stat.st_mode & 0o777
            );
            return Err(ArenaError::file(&stamp.path, std::io::Error::other(reason)));
        }
        Self::file(file.into(), found, *promise)
    }

    pub(super) fn open(fd: OwnedFd, backing: &Backing) -> Result<Self, ArenaError> {
        match backing {
            Backing::Sealed => Self::sealed(fd),
            Backing::File(stamp, promise) => Self::file(fd, stamp.clone(), *promise),
            Backing::Store => Err(ArenaError::InStore),
        }
    }
}

/// Opens a file for reading, and notes its state.
///
/// # Errors
/// If there is no such file, or it may not be read; names it.
pub(crate) fn open(path: &Path) -> Result<(File, Stamp), ArenaError> {
    // Of a pipe, `open` would wait for somebody who writes into it. For a file the flag means nothing.
    let nonblocking = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|error| ArenaError::file(path, error))?;
    let metadata = file.metadata().map_err(|error| ArenaError::file(path, error))?;
    if !metadata.is_file() {
        return Err(ArenaError::file(path, std::io::Error::other("it is not a file")));
    }
    // Workers may have another working directory.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let stamp = Stamp::of(&path, &file)?;
    Ok((file, stamp))
}
