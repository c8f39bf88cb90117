//! `madvise` and `mlock` for mapped memory: huge pages, prefaulting, and locking.

use std::io;
use std::ops::Range;
#[cfg(test)]
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use super::aligned_map::{HUGE_PAGE, Map};

/// The kinds of `madvise` that this crate uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Replaces small pages with huge pages synchronously (`MADV_COLLAPSE`).
    Collapse,
    /// Prefaults all pages for reading (`MADV_POPULATE_READ`).
    Populate,
    /// Removes the pages from the page table of this process (`MADV_DONTNEED`). They stay in the file, and
    /// are mapped again when they are read.
    Unmap,
}

impl Advice {
    #[cfg(target_os = "linux")]
    fn number(self) -> libc::c_int {
        match self {
            Self::Collapse => libc::MADV_COLLAPSE,
            Self::Populate => libc::MADV_POPULATE_READ,
            Self::Unmap => libc::MADV_DONTNEED,
        }
    }

    /// A number that no kernel knows, so that all are refused with `EINVAL`.
    #[cfg(not(target_os = "linux"))]
    fn number(self) -> libc::c_int {
        libc::c_int::MAX
    }

    /// Returns `true` if the kernel supports the advice: for an empty range, `EINVAL` means that
    /// the advice is unknown.
    ///
    /// Any other error comes from a policy, such as a seccomp filter, and is reported again by the
    /// advice itself.
    pub(crate) fn is_known(self) -> bool {
        // SAFETY: an empty range concerns no memory.
        let answer = succeeded(unsafe { libc::madvise(std::ptr::null_mut(), 0, self.number()) });
        answer.err().is_none_or(|error| error.raw_os_error() != Some(libc::EINVAL))
    }
}

/// A mapping of a file, without any statement about its content. Clones share the mapping, which is
/// unmapped when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Pages(Arc<Map>);

/// A mapping that may have been unmapped.
pub(crate) struct WeakPages(Weak<Map>);

impl Pages {
    /// Maps the first `len` bytes of a file for reading. The file must be at least that long,
    /// otherwise reading raises `SIGBUS`.
    pub(super) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Ok(Self(Arc::new(Map::new(fd, len)?)))
    }

    /// Creates a mapping that cannot use huge pages.
    #[cfg(test)]
    pub(crate) fn askew(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Ok(Self(Arc::new(Map::askew(fd.as_fd(), len)?)))
    }

    /// Creates a private mapping, which is the fallback if a shared one is refused.
    #[cfg(test)]
    pub(crate) fn private(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Ok(Self(Arc::new(Map::private(fd.as_fd(), len)?)))
    }

    /// Creates a mapping of any file.
    #[cfg(test)]
    pub(crate) fn of(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Self::map(fd.as_fd(), len)
    }

    pub(super) fn start(&self) -> *const u8 {
        self.0.start()
    }

    /// The address range of the mapping.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.0.start().addr();
        start..start + self.0.len()
    }

    /// Returns `true` if the mapping is aligned for huge pages.
    pub(crate) fn is_aligned(&self) -> bool {
        self.0.start().addr().is_multiple_of(HUGE_PAGE)
    }

    /// Applies an advice to `len` bytes from `offset`, which is a multiple of the page size. No
    /// advice changes the content that any process reads there.
    pub(crate) fn advise(&self, offset: usize, len: usize, advice: Advice) -> io::Result<()> {
        let start = self.within(offset, len)?;
        // SAFETY: the range lies in a mapping that is alive, since `self` is. Collapsing moves the
        // same bytes into another page; a concurrent reader waits for it or reads the old page.
        // Populating only reads. A page that is removed from the page table is read from the file again: the
        // mapping is read-only, so it has no page of its own. No content changes.
        succeeded(unsafe { libc::madvise(start, len, advice.number()) })
    }

    /// Locks the whole mapping in memory until it is unmapped.
    pub(crate) fn lock(&self) -> io::Result<()> {
        let len = self.0.len();
        let start = self.within(0, len)?;
        // SAFETY: the range is a mapping that is alive, since `self` is. Locking changes no
        // content. Unmapping unlocks.
        succeeded(unsafe { libc::mlock(start, len) })
    }

    pub(crate) fn downgrade(&self) -> WeakPages {
        WeakPages(Arc::downgrade(&self.0))
    }

    pub(super) fn within(&self, offset: usize, len: usize) -> io::Result<*mut libc::c_void> {
        match offset.checked_add(len) {
            Some(end) if end <= self.0.len() => Ok(self.0.start().wrapping_add(offset).cast_mut().cast()),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }
}

impl WeakPages {
    /// Returns the mapping, or `None` if it has been unmapped.
    pub(crate) fn upgrade(&self) -> Option<Pages> {
        self.0.upgrade().map(Pages)
    }
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
