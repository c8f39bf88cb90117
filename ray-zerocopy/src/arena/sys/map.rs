//! Memory maps of a sealed memfd.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use memmap2::{Mmap, MmapOptions};

use super::{SEALS, sealed};

/// A read-only map of a sealed memfd.
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps the whole of a sealed memfd.
    ///
    /// # Errors
    /// If the memfd lacks a seal (an error of kind `PermissionDenied`), or the kernel refuses the map.
    pub(crate) fn open(fd: impl AsFd, len: usize) -> io::Result<Self> {
        let fd = fd.as_fd();
        if !sealed(fd)?.contains(SEALS) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the memfd is not sealed"));
        }
        // SAFETY: memmap2 asks that the file is not changed or truncated while the map lives. All four seals are set
        // (checked above), and F_SEAL_SEAL forbids removing them: the kernel refuses every write, every writable map
        // and every change of size of this memfd, by anybody, for as long as it exists.
        let map = unsafe { MmapOptions::new().len(len).map(fd.as_raw_fd()) }?;
        Ok(Self(map))
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.0.len())
    }
}
