//! Buffers of megabytes whose memory goes back to the kernel when they are dropped.
//!
//! The allocator keeps freed memory of this size for its next use, in each thread that once had some: a program that
//! seals arenas on several threads would have megabytes less for good.

use std::io;

use memmap2::MmapMut;

/// Returns a buffer of `len` zeros, at least one.
///
/// # Errors
/// If the kernel has no memory for it.
pub(crate) fn scratch(len: usize) -> io::Result<MmapMut> {
    MmapMut::map_anon(len.max(1))
}
