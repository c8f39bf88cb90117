//! Anonymous memory that can be sealed against change. Linux only.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};

/// What makes a memfd immutable: no write, no change of size, and no taking back of the seals.
pub(crate) const SEALS: SealFlags =
    SealFlags::WRITE.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::SEAL);

/// Creates a memfd of `len` zero bytes. The name shows in `/proc/<pid>/maps` and means nothing.
pub(crate) fn create(name: &str, len: u64) -> Result<OwnedFd, (&'static str, io::Error)> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| ("memfd_create", errno.into()))?;
    ftruncate(&fd, len).map_err(|errno| ("ftruncate", errno.into()))?;
    Ok(fd)
}

/// Makes the memfd immutable. Fails while a writable mapping of it exists anywhere.
pub(crate) fn seal(fd: impl AsFd) -> io::Result<()> {
    fcntl_add_seals(fd, SEALS).map_err(Into::into)
}

/// The seals of a file, or an error if it is not a memfd.
pub(crate) fn sealed(fd: impl AsFd) -> io::Result<SealFlags> {
    fcntl_get_seals(fd).map_err(Into::into)
}
