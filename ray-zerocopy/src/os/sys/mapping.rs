//! Memory maps of a sealed memfd, or of a file that somebody has promised to leave alone.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::advice::Pages;
use super::memfd;
use super::memfd::{SEALS, sealed};

/// A read-only map of bytes that do not change.
pub(crate) struct Mapping(Pages);

impl Mapping {
    /// Maps the whole of a sealed memfd, through a descriptor that is open for reading only: see [`reader`](super::memfd::reader).
    ///
    /// # Errors
    /// If the memfd lacks a seal (an error of kind `PermissionDenied`), or the kernel refuses the map.
    pub(crate) fn open(fd: impl AsFd, len: usize) -> io::Result<Self> {
        let fd = fd.as_fd();
        if !sealed(fd)?.contains(SEALS) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the memfd is not sealed"));
        }
        let reader = memfd::reopened(fd);
        Pages::map(reader.as_ref().map_or(fd, AsFd::as_fd), len).map(Self)
    }

    /// Maps the first `len` bytes of a file, which has them.
    ///
    /// # Errors
    /// If the file is shorter, or the kernel refuses the map.
    pub(crate) fn file(fd: impl AsFd, len: usize, _promise: FileUnchanged) -> io::Result<Self> {
        let fd = fd.as_fd();
        let found = rustix::fs::fstat(fd)?.st_size as u64;
        if found < len as u64 {
            let reason = format!("the file has {found} bytes, and {len} are to be mapped");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        Pages::map(fd, len).map(Self)
    }

    /// The memory of the map, without a word on its content.
    pub(crate) fn pages(&self) -> Pages {
        self.0.clone()
    }
}

/// A map of bytes that do not change, of which this process may write to its own view: a page that is written to becomes a copy of this
/// process's own, and nobody else sees it.
#[cfg(feature = "torchscript")]
pub(crate) struct OwnView(memmap2::MmapMut);

#[cfg(feature = "torchscript")]
impl OwnView {
    /// Maps what a [`Mapping`] is of, once more.
    ///
    /// # Errors
    /// If the kernel refuses the map.
    pub(crate) fn of(_mapping: &Pages, fd: impl AsFd, len: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        let mut options = memmap2::MmapOptions::new();
        // SAFETY: what is mapped does not change and is not cut short, for the reasons that `Mapping` gives: there is one of the same
        // file descriptor, and whoever has its pages has passed its checks. A private map is one that seals allow.
        unsafe { options.len(len).map_copy(fd.as_fd().as_raw_fd()) }.map(Self)
    }
}

#[cfg(feature = "torchscript")]
impl AsRef<[u8]> for OwnView {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the map has `len` readable bytes, it lives as long as `self`, and they never change. Either all four
        // seals of a memfd are set (checked in `open`), and F_SEAL_SEAL forbids removing them: the kernel refuses every
        // write, every writable map and every change of size, by anybody, for as long as it exists. Or it is a file that
        // nobody writes to or cuts short, by the word of whoever made the `FileUnchanged` that `file` asks for: only
        // `Placement::in_file` makes one, an unsafe function with just this contract, and the process that a promise is
        // sent to serves the arena of the one that it was given to.
        unsafe { std::slice::from_raw_parts(self.0.start(), self.0.addresses().len()) }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.0.addresses().len())
    }
}

/// Somebody's word that a file is neither written nor cut short while it is mapped.
///
/// It travels to workers with the arena: they are the same program as the process whose user gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileUnchanged(());

impl FileUnchanged {
    /// Gives the word.
    ///
    /// # Safety
    /// Files that are mapped with it are neither written to nor cut short while the map lives.
    pub(crate) const unsafe fn new() -> Self {
        Self(())
    }
}
