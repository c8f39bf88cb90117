//! Read-only maps at addresses that huge pages can have.
//!
//! The kernel maps 2 MiB at once only where address and offset in the file are multiples of 2 MiB. `mmap` gives any
//! page. So a range that has such an address in it is reserved first, and the file is put there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// The size of a huge page, and where one may begin.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// A read-only map of the first `len` bytes of a file, or a range that is reserved for one. Unmapped when dropped.
pub(super) struct Map {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a map belongs to the process, not to a thread, and nothing in `Map` changes after it was made.
unsafe impl Send for Map {}
// SAFETY: all that can be had from a shared `Map` is its address and its length.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the file, from a multiple of [`HUGE_PAGE`] if it has at least that many bytes.
    ///
    /// Where the address space has no room for the reservation, the map is at any page: it can be read all the same.
    ///
    /// The map is shared (MAP_SHARED). Before Linux 6.7 the kernel refuses that for a write-sealed memfd whose descriptor is open for
    /// writing, which happens where `/proc` is missing (see `memfd::reader`). A private map is allowed there. It has the same pages
    /// of the page cache, and none of its own as long as it is only read.
    pub(super) fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        match Self::with(fd, len, libc::MAP_SHARED) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Self::private(fd, len),
            mapped => mapped,
        }
    }

    /// Maps the file as [`new`](Self::new) does where a shared map is refused.
    pub(super) fn private(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::with(fd, len, libc::MAP_PRIVATE)
    }

    fn with(fd: BorrowedFd<'_>, len: usize, sharing: libc::c_int) -> io::Result<Self> {
        // This one says what is wrong with the file, if anything is.
        let anywhere = Self::anywhere(fd, len, sharing)?;
        if len < HUGE_PAGE || anywhere.start.addr().get().is_multiple_of(HUGE_PAGE) {
            return Ok(anywhere);
        }
        Ok(Self::placed(fd, len, 0, sharing).unwrap_or(anywhere))
    }

    fn anywhere(fd: BorrowedFd<'_>, len: usize, sharing: libc::c_int) -> io::Result<Self> {
        // SAFETY: a map at an address that the kernel chooses replaces no other map.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, sharing, fd.as_raw_fd(), 0) };
        Ok(Self { start: mapped(start)?, len })
    }

    /// Maps the file `past` bytes (whole pages) behind a multiple of [`HUGE_PAGE`].
    fn placed(fd: BorrowedFd<'_>, len: usize, past: usize, sharing: libc::c_int) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let page = page()?;
        let room = len.checked_next_multiple_of(page).and_then(|pages| pages.checked_add(HUGE_PAGE + past));
        let room = room.ok_or_else(too_large)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: as above; nobody can touch this range, it only keeps others out.
        let reserved = unsafe { libc::mmap(ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
        let reserved = Self { start: mapped(reserved)?, len: room };
        let first = reserved.start.addr().get();
        let before = first.next_multiple_of(HUGE_PAGE) - first + past;
        let mut map = reserved.trimmed(before, len.next_multiple_of(page))?;
        let (start, flags) = (map.start.as_ptr().cast(), sharing | libc::MAP_FIXED);
        // SAFETY: MAP_FIXED replaces what is mapped at `start .. start + len`: that is `map`, a reservation of the pages
        // of `len`, which is ours alone, and where nothing has been put.
        let placed = unsafe { libc::mmap(start, len, libc::PROT_READ, flags, fd.as_raw_fd(), 0) };
        if placed == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // The reservation may be gone by now, and its addresses somebody else's: unmapping them is not ours to do.
            std::mem::forget(map);
            return Err(error);
        }
        map.len = len;
        Ok(map)
    }

    /// Gives back what lies before and behind a part of a map, all in whole pages.
    fn trimmed(mut self, before: usize, len: usize) -> io::Result<Self> {
        let at = |offset| NonNull::new(self.start.as_ptr().wrapping_add(offset)).ok_or(io::ErrorKind::OutOfMemory);
        let (start, behind) = (at(before)?, at(before + len)?);
        let rest = self.len - before - len;
        // Three neighbours, each unmapped for itself: `self` is the first of them from here on.
        self.len = before;
        drop(Self { start: behind, len: rest });
        Ok(Self { start, len })
    }

    /// A map that huge pages cannot have.
    #[cfg(test)]
    pub(super) fn askew(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::placed(fd, len, page()?, libc::MAP_SHARED)
    }

    pub(super) fn start(&self) -> *const u8 {
        self.start.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the range was mapped by `Map` for this value alone, which lends its address to nobody who
            // outlives it. An error is impossible but for a range that is none, and there is nobody to tell.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}

fn mapped(start: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    match NonNull::new(start) {
        Some(found) if start != libc::MAP_FAILED => Ok(found.cast()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The size of a page.
fn page() -> io::Result<usize> {
    // SAFETY: `sysconf` reads a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).ok().filter(|page| page.is_power_of_two()).ok_or_else(io::Error::last_os_error)
}
