//! Memory mappings of a sealed memfd, or of a file that is guaranteed not to change.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::advice::Pages;
use super::memfd;
use super::memfd::{SEALS, sealed};

/// A read-only mapping of bytes that do not change.
pub(crate) struct Mapping(Pages);

impl Mapping {
    /// Maps the whole of a sealed memfd, through a descriptor that is open for reading only: see
    /// [`reader`](super::memfd::reader).
    ///
    /// # Errors
    /// If the memfd lacks a seal (an error of kind `PermissionDenied`), or the kernel refuses the
    /// mapping.
    pub(crate) fn open(fd: impl AsFd, len: usize) -> io::Result<Self> {
        let fd = fd.as_fd();
        if !sealed(fd)?.contains(SEALS) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the memfd is not sealed"));
        }
        let reader = memfd::reopened(fd);
        Pages::map(reader.as_ref().map_or(fd, AsFd::as_fd), len).map(Self)
    }

    /// Maps the first `len` bytes of a file.
    ///
    /// # Errors
    /// If the file is shorter, or the kernel refuses the mapping.
    pub(crate) fn file(fd: impl AsFd, len: usize, _promise: FileUnchanged) -> io::Result<Self> {
        let fd = fd.as_fd();
        let found = rustix::fs::fstat(fd)?.st_size as u64;
        if found < len as u64 {
            let reason = format!("the file has {found} bytes, and {len} are to be mapped");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        Pages::map(fd, len).map(Self)
    }

    /// The memory of the mapping, without any statement about its content.
    pub(crate) fn pages(&self) -> Pages {
        self.0.clone()
    }
}

/// A private, writable mapping of bytes that do not change (copy on write): a page that is written
/// to becomes a copy that only this process sees.
#[cfg(feature = "torchscript")]
pub(crate) struct OwnView(memmap2::MmapMut);

#[cfg(feature = "torchscript")]
impl OwnView {
    /// Maps the file of an existing [`Mapping`] again, privately.
    ///
    /// # Errors
    /// If the kernel refuses the mapping.
    pub(crate) fn of(_mapping: &Pages, fd: impl AsFd, len: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        let mut options = memmap2::MmapOptions::new();
        // SAFETY: the mapped bytes do not change and the file is not truncated, for the reasons
        // that `Mapping` gives: a `Mapping` of the same file descriptor exists, and its pages are
        // only available after its checks have passed. Seals allow a private mapping.
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
        // SAFETY: the mapping has `len` readable bytes, it lives as long as `self`, and the bytes
        // never change. Either all four seals of a memfd are set (checked in `open`), and
        // F_SEAL_SEAL forbids removing them: the kernel refuses every write, every writable mapping
        // and every change of size, by any process, for as long as the memfd exists. Or it is a
        // file that is neither written nor truncated, as guaranteed by the caller that created the
        // `FileUnchanged` that `file` requires: only `Placement::in_file` creates one, an unsafe
        // function with exactly this contract, and a process that receives a `FileUnchanged` serves
        // the arena of the process that created it.
        unsafe { std::slice::from_raw_parts(self.0.start(), self.0.addresses().len()) }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({} bytes)", self.0.addresses().len())
    }
}

/// The caller's guarantee that a file is neither written nor truncated while it is mapped.
///
/// It is sent to workers with the arena: they run the same program as the process whose user gave
/// the guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileUnchanged(());

impl FileUnchanged {
    /// Gives the guarantee.
    ///
    /// # Safety
    /// Files that are mapped with it must be neither written nor truncated while the mapping lives.
    pub(crate) const unsafe fn new() -> Self {
        Self(())
    }
}
