//! Leaving the cluster when the program ends.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is called at exit, with the status that the process is about to have.
pub(crate) type AtExit = extern "C" fn(c_int, *mut c_void);

unsafe extern "C" {
    /// Of glibc, as Ray is.
    fn on_exit(function: AtExit, argument: *mut c_void) -> c_int;
}

/// Has `leave` called when the process exits, before what Ray's libraries have noted for that end.
///
/// They note more as they are used, and what is noted last is done first. So this is to be called with each use, and
/// notes `leave` again after the first, the second, the fourth, the eighth and so on.
pub(crate) fn at_exit(leave: AtExit) {
    static USES: AtomicUsize = AtomicUsize::new(0);
    if (USES.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
        // SAFETY: `leave` is a function that lives as long as the program, and may be called at any time, and again: it
        // catches what panics, and asks first whether there is anything to leave. If it cannot be noted, Ray's own processes
        // notice that this one is gone.
        let _noted = unsafe { on_exit(leave, std::ptr::null_mut()) };
    }
}

/// Ends a process that is exiting, without what libraries have noted for that end. What is buffered for C's streams is written.
pub(crate) fn exit_at_once(status: c_int) -> ! {
    // SAFETY: may be called at any time, with null for all streams; a fork has their locks free.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    // SAFETY: ends the process, whatever state it is in.
    unsafe { libc::_exit(status) }
}
