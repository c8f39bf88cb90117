//! An allocator that aligns large blocks, for the benchmark only. Everything unsafe of it is here.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering};

/// The environment variable that switches it on. It is read once, before `main`, because a block has to be given back
/// as it was taken.
pub const ALIGNED: &str = "RAY_ZEROCOPY_BENCH_ALIGNED";
const VARIABLE: &std::ffi::CStr = c"RAY_ZEROCOPY_BENCH_ALIGNED";

/// What fits every vector register, and a cache line.
const ALIGNMENT: usize = 64;
/// Smaller blocks are no tensors that matter, and padding would cost them most.
const LARGE: usize = 4096;

const UNDECIDED: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

/// The system's allocator, which places large blocks at multiples of 64 bytes if it is switched on.
pub struct Switchable {
    state: AtomicU8,
}

impl Switchable {
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(UNDECIDED) }
    }

    /// Whether it is switched on. The same for the whole life of the process, since nobody here changes the environment.
    pub fn is_on(&self) -> bool {
        match self.state.load(Ordering::Relaxed) {
            UNDECIDED => {
                // SAFETY: the name ends with a null byte, and no thread of this program changes the environment.
                let value = unsafe { libc::getenv(VARIABLE.as_ptr()) };
                let state = if value.is_null() { OFF } else { ON };
                self.state.store(state, Ordering::Relaxed);
                state == ON
            }
            state => state == ON,
        }
    }

    /// The layout to ask the system for: a function of `layout` and of what never changes.
    fn layout(&self, layout: Layout) -> Layout {
        match layout.size() >= LARGE && self.is_on() {
            // 64 is a power of two, so this fails only for sizes near the end of the address space, which fail anyway.
            true => layout.align_to(ALIGNMENT).unwrap_or(layout),
            false => layout,
        }
    }
}

// SAFETY: every call goes to the system's allocator. A block's layout is replaced by one of the same size and at least
// the same alignment, and by the same one each time, since `layout` depends on nothing that changes.
unsafe impl GlobalAlloc for Switchable {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises a size above zero, which `layout` keeps.
        unsafe { System.alloc(self.layout(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(self.layout(layout)) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller promises that the block came from `alloc` with this layout, so it came from the system's
        // with the one that replaces it.
        unsafe { System.dealloc(pointer, self.layout(layout)) }
    }
    // `realloc` is the trait's own: a new block by `alloc`, a copy, and `dealloc`. A block that grows past `LARGE` would change its layout.
}
