//! Shared, read-only maps at addresses that huge pages can have.
//!
//! The kernel maps 2 MiB at once only where address and offset in the file are multiples of 2 MiB. `mmap` gives any
//! page. So a range that has such an address in it is reserved first, and the file is put there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// The size of a huge page, and where one may begin.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// A shared, read-only map of the first `len` bytes of a file. Unmapped when dropped.
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
    pub(super) fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        if len < HUGE_PAGE {
            return Self::anywhere(fd, len);
        }
        Self::placed(fd, len, 0).or_else(|_| Self::anywhere(fd, len))
    }

    fn anywhere(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // SAFETY: a map at an address that the kernel chooses takes no memory away from anybody.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        Ok(Self { start: mapped(start)?, len })
    }

    /// Maps the file `past` bytes (whole pages) behind a multiple of [`HUGE_PAGE`].
    fn placed(fd: BorrowedFd<'_>, len: usize, past: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let page = page()?;
        let room = len.checked_next_multiple_of(page).and_then(|pages| pages.checked_add(HUGE_PAGE + past));
        let room = room.ok_or_else(too_large)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: as above; nobody can touch this range, it only keeps others out.
        let reserved = unsafe { libc::mmap(ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
        // From here on the whole range is given back on every way out.
        let mut reserved = Self { start: mapped(reserved)?, len: room };
        let first = reserved.start.addr().get();
        let before = first.next_multiple_of(HUGE_PAGE) - first + past;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let start = reserved.start.as_ptr().wrapping_add(before);
        // SAFETY: MAP_FIXED replaces what is mapped at `start .. start + len`. That lies within the range reserved
        // above, which has `HUGE_PAGE + past` bytes more than the pages of `len`, while `before` is less than that; the
        // range is ours alone, and nothing has been put there.
        let placed = unsafe { libc::mmap(start.cast(), len, libc::PROT_READ, flags, fd.as_raw_fd(), 0) };
        let start = mapped(placed)?;
        // Now there are three neighbours, each of whole pages and each unmapped for itself: the reservation before the
        // map, the map, and the reservation behind it.
        let rest = before + len.next_multiple_of(page);
        let behind = NonNull::new(reserved.start.as_ptr().wrapping_add(rest)).ok_or_else(too_large)?;
        drop(Self { start: behind, len: room - rest });
        reserved.len = before;
        Ok(Self { start, len })
    }

    /// A map that huge pages cannot have.
    #[cfg(test)]
    pub(super) fn askew(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::placed(fd, len, page()?)
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
