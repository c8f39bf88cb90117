//! A global allocator that counts the bytes in use by all threads, and their peak.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The global allocator of a test program that calls [`used`] or [`growth`].
pub struct Counting;

// SAFETY: every call is forwarded unchanged to `System`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(USED.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Returns the bytes that are allocated now.
pub fn used() -> usize {
    let used = USED.load(Relaxed);
    assert!(used > 0, "`Counting` is not the global allocator of this program");
    used
}

/// Returns the result of `call`, and the peak growth of the heap of all threads while it ran.
pub fn growth<T>(call: impl FnOnce() -> T) -> (T, u64) {
    let before = used();
    PEAK.store(before, Relaxed);
    let result = call();
    (result, (PEAK.load(Relaxed) - before) as u64)
}
