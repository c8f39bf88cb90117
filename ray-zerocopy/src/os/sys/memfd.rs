//! Anonymous memory that can be sealed against change. Linux only.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fcntl_getfl, fstat, ftruncate, memfd_create,
    open,
};

use crate::os::limits;

/// What makes a memfd immutable: no write, no change of size, and no taking back of the seals.
pub(crate) const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Creates a memfd of `len` zero bytes. The name shows in `/proc/<pid>/maps` and means nothing.
pub(crate) fn create(name: &str, len: u64) -> Result<OwnedFd, (&'static str, io::Error)> {
    limits::may_write(len).map_err(|error| ("ftruncate", error))?;
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| ("memfd_create", errno.into()))?;
    ftruncate(&fd, len).map_err(|errno| ("ftruncate", errno.into()))?;
    Ok(fd)
}

/// Makes the memfd immutable, and returns a descriptor that is open for reading only: see [`reader`]. Fails while a writable
/// mapping of the memfd exists anywhere.
pub(crate) fn seal(fd: OwnedFd) -> io::Result<OwnedFd> {
    fcntl_add_seals(&fd, SEALS)?;
    Ok(reader(fd))
}

/// The seals of a file, or an error if it is not a memfd.
pub(crate) fn sealed(fd: impl AsFd) -> io::Result<SealFlags> {
    fcntl_get_seals(fd).map_err(Into::into)
}

/// A descriptor of a sealed memfd that is open for reading only.
///
/// Before Linux 6.7 the kernel takes every shared map through a descriptor that is open for writing as one that might be
/// written to, even if it is read-only, and refuses it with EPERM once `F_SEAL_WRITE` is set. Through a descriptor that is
/// open for reading only it is allowed on every kernel.
///
/// Returns the descriptor as it is where it cannot be opened again, because `/proc` is not mounted or the process has as many
/// open files as it may have. The seals still hold, and a map falls back to a private one: see `Map::new`.
pub(crate) fn reader(fd: OwnedFd) -> OwnedFd {
    reopened(fd.as_fd()).unwrap_or(fd)
}

/// Opens a memfd again for reading only. Returns `None` if it is open for reading only already, or cannot be opened again.
pub(super) fn reopened(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    if fcntl_getfl(fd).ok()?.intersection(OFlags::RWMODE) == OFlags::RDONLY {
        return None;
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let again = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).ok()?;
    // What is mounted at /proc need not be this process's.
    let (own, found) = (fstat(fd).ok()?, fstat(&again).ok()?);
    ((own.st_dev, own.st_ino) == (found.st_dev, found.st_ino)).then_some(again)
}
