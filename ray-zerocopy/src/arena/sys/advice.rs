//! What a process may ask of the kernel for memory that it has mapped: huge pages, pages at once, pages for good.

use std::io;

use super::reserve::Map;

/// `madvise`'s advices that this crate uses.
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

    /// Whether the kernel knows the advice: about no bytes at all, it refuses only what it does not know.
    pub(crate) fn is_known(self) -> bool {
        // SAFETY: no memory is concerned.
        unsafe { libc::madvise(std::ptr::null_mut(), 0, self.number()) == 0 }
    }
}

/// Gives the kernel an advice on the bytes from `offset`, a multiple of the page's size. Neither changes what is read
/// there, by anybody.
pub(super) fn advise(map: &Map, offset: usize, len: usize, advice: Advice) -> io::Result<()> {
    let (start, len) = within(map, offset, len)?;
    // SAFETY: the range lies in a map that is alive, since it is borrowed. Collapsing puts the same bytes into another
    // page, and whoever reads meanwhile waits for it or reads the old page; populating reads. No content changes.
    succeeded(unsafe { libc::madvise(start, len, advice.number()) })
}

/// Keeps the whole map in memory until it goes.
pub(super) fn lock(map: &Map) -> io::Result<()> {
    let (start, len) = within(map, 0, map.len())?;
    // SAFETY: the range is a map that is alive; locking changes no content. Unmapping ends the lock.
    succeeded(unsafe { libc::mlock(start, len) })
}

fn within(map: &Map, offset: usize, len: usize) -> io::Result<(*mut libc::c_void, usize)> {
    match offset.checked_add(len) {
        Some(end) if end <= map.len() => Ok((map.start().wrapping_add(offset).cast_mut().cast(), len)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
