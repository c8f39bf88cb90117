//! Giving freed heap memory back to the kernel.

/// An owner that has shared its model and dropped it has freed its own copy, but glibc keeps freed blocks that are not
/// at the end of the heap. Before workers start, the machine gets them back.
pub(crate) fn trim() {
    // SAFETY: `malloc_trim` has no preconditions: it may be called at any time, from any thread, and it only releases
    // pages of which no byte is allocated.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
