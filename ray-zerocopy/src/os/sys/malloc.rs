//! Which freed heap memory goes back to the kernel, and which is kept.

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

/// What a worker's heap may keep of the blocks that were freed at its end, in bytes.
#[cfg(target_env = "gnu")]
const KEEP: libc::c_int = 64 << 20;
/// Larger blocks are the kernel's, each by itself, and go back when they are freed.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 32 << 20;

/// A worker computes the same thing again and again, so it will want the memory of its activations again. glibc gives
/// it back to the kernel after each layer, and each layer waits until the kernel has cleared as many pages anew.
///
/// These are the bounds up to which glibc raises its thresholds by itself, as it sees larger blocks freed; a worker begins with
/// them. Who has set any in the environment knows better. A wish: if it is not granted, the worker is slower.
pub(crate) fn keep() {
    #[cfg(target_env = "gnu")]
    {
        let set = ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"];
        if set.into_iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        for (parameter, bytes) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEEP)] {
            // SAFETY: `mallopt` takes two numbers and no pointer, and changes a number under the allocator's lock. It moves and
            // frees no block, and both parameters only say which memory later calls take and give back.
            unsafe { libc::mallopt(parameter, bytes) };
        }
    }
}
