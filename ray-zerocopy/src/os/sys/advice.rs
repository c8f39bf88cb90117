//! What a process may ask of the kernel for memory that it has mapped: huge pages, pages at once, pages for good.

use std::io;
use std::ops::Range;
#[cfg(test)]
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use super::aligned_map::{HUGE_PAGE, Map};

/// What `madvise` can be asked for, as far as this crate asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Put huge pages in the place of small ones, now.
    Collapse,
    /// Map every page, as if it had been read.
    Populate,
}

impl Advice {
    fn number(self) -> libc::c_int {
        match self {
            Self::Collapse => libc::MADV_COLLAPSE,
            Self::Populate => libc::MADV_POPULATE_READ,
        }
    }

    /// Whether the kernel knows the advice: about no bytes at all, it calls only what it does not know invalid.
    ///
    /// Any other error is a policy's, such as a seccomp filter's, and comes again with the advice itself.
    pub(crate) fn is_known(self) -> bool {
        // SAFETY: no memory is concerned.
        let answer = succeeded(unsafe { libc::madvise(std::ptr::null_mut(), 0, self.number()) });
        answer.err().is_none_or(|error| error.raw_os_error() != Some(libc::EINVAL))
    }
}

/// A map of a file, without a word on its content. Clones are the same map, which goes with the last of them.
#[derive(Clone)]
pub(crate) struct Pages(Arc<Map>);

/// A map that may be gone.
pub(crate) struct WeakPages(Weak<Map>);

impl Pages {
    /// Maps the first `len` bytes of a file for reading. The file has to have them, or reading is a `SIGBUS`.
    pub(super) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Ok(Self(Arc::new(Map::new(fd, len)?)))
    }

    /// A map that cannot have huge pages.
    #[cfg(test)]
    pub(crate) fn askew(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Ok(Self(Arc::new(Map::askew(fd.as_fd(), len)?)))
    }

    /// A private map, as it is made where a shared one is refused.
    #[cfg(test)]
    pub(crate) fn private(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Ok(Self(Arc::new(Map::private(fd.as_fd(), len)?)))
    }

    /// A map of any file.
    #[cfg(test)]
    pub(crate) fn of(fd: impl AsFd, len: usize) -> io::Result<Self> {
        Self::map(fd.as_fd(), len)
    }

    pub(super) fn start(&self) -> *const u8 {
        self.0.start()
    }

    /// Where the map begins and ends.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.0.start().addr();
        start..start + self.0.len()
    }

    /// Whether huge pages can be mapped here.
    pub(crate) fn is_aligned(&self) -> bool {
        self.0.start().addr().is_multiple_of(HUGE_PAGE)
    }

    /// Gives the kernel an advice on `len` bytes from `offset`, a multiple of the page's size. None changes what is read
    /// there, by anybody.
    pub(crate) fn advise(&self, offset: usize, len: usize, advice: Advice) -> io::Result<()> {
        let start = self.within(offset, len)?;
        // SAFETY: the range lies in a map that is alive, since `self` is. Collapsing puts the same bytes into another
        // page, and whoever reads meanwhile waits for it or reads the old page; populating reads. No content changes.
        succeeded(unsafe { libc::madvise(start, len, advice.number()) })
    }

    /// Keeps the whole map in memory until it goes.
    pub(crate) fn lock(&self) -> io::Result<()> {
        let len = self.0.len();
        let start = self.within(0, len)?;
        // SAFETY: the range is a map that is alive, since `self` is; locking changes no content. Unmapping unlocks.
        succeeded(unsafe { libc::mlock(start, len) })
    }

    pub(crate) fn downgrade(&self) -> WeakPages {
        WeakPages(Arc::downgrade(&self.0))
    }

    fn within(&self, offset: usize, len: usize) -> io::Result<*mut libc::c_void> {
        match offset.checked_add(len) {
            Some(end) if end <= self.0.len() => Ok(self.0.start().wrapping_add(offset).cast_mut().cast()),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }
}

impl WeakPages {
    /// The map, if somebody still has it.
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
