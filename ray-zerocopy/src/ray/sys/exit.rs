//! Leaving the cluster when the program ends.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Has `leave` called when the process exits, before what Ray's libraries have noted for that end.
///
/// They note more as they are used, and what is noted last is done first. So this is to be called with each use, and
/// notes `leave` again after the first, the second, the fourth, the eighth and so on.
pub(crate) fn at_exit(leave: extern "C" fn()) {
    static USES: AtomicUsize = AtomicUsize::new(0);
    if (USES.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
        // SAFETY: `leave` is a function that lives as long as the program, and may be called at any time, and again: it
        // catches what panics, and asks first whether there is anything to leave. If it cannot be noted, Ray's own processes
        // notice that this one is gone.
        let _noted = unsafe { libc::atexit(leave) };
    }
}
