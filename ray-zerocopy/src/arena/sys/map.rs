//! Memory maps of a sealed memfd.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use memmap2::MmapOptions;

use super::pages::Pages;
use super::{SEALS, seal, sealed};

/// A read-only map of a sealed memfd.
pub(crate) struct Mapping(Pages);

impl Mapping {
    /// Maps `len` bytes for writing, lets `fill` write them, unmaps and seals.
    ///
    /// The memfd has to be fresh: nobody else may hold it.
    pub(crate) fn fill<E>(
        fd: &OwnedFd,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, (&'static str, io::Error)> {
        // SAFETY: memmap2 asks that the file is not changed or truncated by others while the map lives. The memfd was
        // created by the caller with `sys::create`, has not left this process, and the map ends with this function.
        let mut map =
            unsafe { MmapOptions::new().len(len).map_mut(fd.as_raw_fd()) }.map_err(|error| ("mmap", error))?;
        let filled = fill(&mut map);
        drop(map);
        if filled.is_ok() {
            seal(fd).map_err(|error| ("fcntl(F_ADD_SEALS)", error))?;
        }
        Ok(filled)
    }

    /// Maps the whole of a sealed memfd.
    ///
    /// # Errors
    /// If the memfd lacks a seal (an error of kind `PermissionDenied`), or the kernel refuses the map.
    pub(crate) fn open(fd: impl AsFd, len: usize) -> io::Result<Self> {
        let fd = fd.as_fd();
        if !sealed(fd)?.contains(SEALS) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the memfd is not sealed"));
        }
        Pages::map(fd, len).map(Self)
    }

    /// The memory of the map, without a word on its content.
    pub(crate) fn pages(&self) -> Pages {
        self.0.clone()
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the map has `len` readable bytes, it lives as long as `self`, and they never change: all four seals
        // of the memfd are set (checked in `open`), and F_SEAL_SEAL forbids removing them. The kernel refuses every
        // write, every writable map and every change of size of this memfd, by anybody, for as long as it exists.
        unsafe { std::slice::from_raw_parts(self.0.start(), self.0.addresses().len()) }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.0.addresses().len())
    }
}
