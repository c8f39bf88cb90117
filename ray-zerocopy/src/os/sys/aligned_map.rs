//! Read-only mappings at addresses that are aligned for huge pages.
//!
//! The kernel maps 2 MiB at once only where the address and the file offset are both multiples of 2
//! MiB, while `mmap` may return any page. So a larger range that contains an aligned address is
//! reserved first, and the file is mapped there.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};

/// Size and alignment of a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// A read-only mapping of the first `len` bytes of a file, or a reserved range for one. Unmapped
/// when dropped.
pub(super) struct Map {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and nothing in `Map` changes after its
// creation.
unsafe impl Send for Map {}
// SAFETY: a shared `Map` only gives access to its address and its length.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the file, at a multiple of [`HUGE_PAGE`] if it is at least that long.
    ///
    /// If the address space has no room for the reservation, the mapping starts at any page: it can
    /// be read in the same way.
    ///
    /// The mapping is shared (MAP_SHARED). Before Linux 6.7 the kernel refuses that for a
    /// write-sealed memfd whose descriptor is open for writing, which happens where `/proc` is
    /// missing (see `memfd::reader`). A private mapping is allowed there. It uses the same pages of
    /// the page cache, and has no pages of its own as long as it is only read.
    pub(super) fn new(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        match Self::with(fd, len, libc::MAP_SHARED) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Self::private(fd, len),
            mapped => mapped,
        }
    }

    /// Creates the private mapping that [`new`](Self::new) falls back to where a shared one is
    /// refused.
    pub(super) fn private(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::with(fd, len, libc::MAP_PRIVATE)
    }

    fn with(fd: BorrowedFd<'_>, len: usize, sharing: libc::c_int) -> io::Result<Self> {
        // This call reports the error if the file cannot be mapped at all.
        let anywhere = Self::anywhere(fd, len, sharing)?;
        if len < HUGE_PAGE || anywhere.start.addr().get().is_multiple_of(HUGE_PAGE) {
            return Ok(anywhere);
        }
        Ok(Self::placed(fd, len, 0, sharing).unwrap_or(anywhere))
    }

    fn anywhere(fd: BorrowedFd<'_>, len: usize, sharing: libc::c_int) -> io::Result<Self> {
        // SAFETY: a mapping at an address that the kernel chooses replaces no other mapping.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, sharing, fd.as_raw_fd(), 0) };
        Ok(Self { start: mapped(start)?, len })
    }

    /// Maps the file `past` bytes (whole pages) after a multiple of [`HUGE_PAGE`].
    fn placed(fd: BorrowedFd<'_>, len: usize, past: usize, sharing: libc::c_int) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let page = page()?;
        let room = len.checked_next_multiple_of(page).and_then(|pages| pages.checked_add(HUGE_PAGE + past));
        let room = room.ok_or_else(too_large)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: as above. The range is not accessible; it only reserves the addresses.
        let reserved = unsafe { libc::mmap(ptr::null_mut(), room, libc::PROT_NONE, flags, -1, 0) };
        let reserved = Self { start: mapped(reserved)?, len: room };
        let first = reserved.start.addr().get();
        let before = first.next_multiple_of(HUGE_PAGE) - first + past;
        let mut map = reserved.trimmed(before, len.next_multiple_of(page))?;
        let (start, flags) = (map.start.as_ptr().cast(), sharing | libc::MAP_FIXED);
        // SAFETY: MAP_FIXED replaces what is mapped at `start .. start + len`. That is `map`, a
        // reservation of the pages of `len` that this function owns exclusively and where nothing
        // has been mapped.
        let placed = unsafe { libc::mmap(start, len, libc::PROT_READ, flags, fd.as_raw_fd(), 0) };
        if placed == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // The kernel may already have removed the reservation, and another mapping may use its
            // addresses: they must not be unmapped here.
            std::mem::forget(map);
            return Err(error);
        }
        map.len = len;
        Ok(map)
    }

    /// Unmaps the parts before and after a range of a mapping, all in whole pages.
    fn trimmed(mut self, before: usize, len: usize) -> io::Result<Self> {
        let at = |offset| NonNull::new(self.start.as_ptr().wrapping_add(offset)).ok_or(io::ErrorKind::OutOfMemory);
        let (start, after) = (at(before)?, at(before + len)?);
        let rest = self.len - before - len;
        // Three adjacent mappings, each unmapped by its own value. From here on `self` is the first
        // of them.
        self.len = before;
        drop(Self { start: after, len: rest });
        Ok(Self { start, len })
    }

    /// Creates a mapping that is not aligned for huge pages.
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
            // SAFETY: the range was mapped by `Map` for this value alone, and no borrow of its
            // address outlives the value. `munmap` fails only for an invalid range, and `drop`
            // could not report an error anyway.
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

/// The page size.
fn page() -> io::Result<usize> {
    // SAFETY: `sysconf` reads a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).ok().filter(|page| page.is_power_of_two()).ok_or_else(io::Error::last_os_error)
}
