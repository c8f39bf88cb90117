//! Heap tuning: which freed memory goes back to the kernel, and which is retained.

/// Returns freed heap memory to the kernel (`malloc_trim`).
///
/// An owner that has shared its model and dropped it has freed its own copy, but glibc retains
/// freed blocks that are not at the end of the heap. This returns them to the machine before
/// workers start.
pub(crate) fn trim() {
    // SAFETY: `malloc_trim` has no preconditions: it may be called at any time, from any thread,
    // and it only releases pages in which no byte is allocated.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Freed bytes that a worker's heap may retain at its end (`M_TRIM_THRESHOLD`).
#[cfg(target_env = "gnu")]
const KEEP: libc::c_int = 64 << 20;
/// Size from which blocks are mapped individually, and unmapped when they are freed
/// (`M_MMAP_THRESHOLD`).
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 32 << 20;

/// Makes a worker's heap retain freed memory.
///
/// A worker repeats the same computation, so it needs the memory of its activations again. By
/// default glibc returns it to the kernel after each layer, and each layer waits until the kernel
/// has zeroed as many pages anew.
///
/// These are the bounds up to which glibc raises its thresholds by itself as it sees larger blocks
/// freed; a worker starts with them. Thresholds that are set in the environment take precedence. If
/// the call fails, the worker is slower but works.
pub(crate) fn keep() {
    #[cfg(target_env = "gnu")]
    {
        let set = ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"];
        if set.into_iter().any(|name| std::env::var_os(name).is_some()) {
            return;
        }
        for (parameter, bytes) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEEP)] {
            // SAFETY: `mallopt` takes two numbers and no pointer, and changes a number under the
            // allocator's lock. It neither moves nor frees a block, and both parameters only say
            // which memory later calls take and give back.
            unsafe { libc::mallopt(parameter, bytes) };
        }
    }
}
