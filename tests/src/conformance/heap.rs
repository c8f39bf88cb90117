//! The system's allocator, with a count of what all threads have in use, and of the most that they ever had.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// To be the global allocator of a test that asks for [`growth`].
pub struct Counting;

// SAFETY: every call is handed to `System` as it is.
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

/// By how much the heap grew at most while `call` ran. Other threads count, too.
pub fn growth<T>(call: impl FnOnce() -> T) -> (T, u64) {
    let before = USED.load(Relaxed);
    assert!(before > 0, "the counting allocator is not that of this program");
    PEAK.store(before, Relaxed);
    let result = call();
    (result, (PEAK.load(Relaxed) - before) as u64)
}
