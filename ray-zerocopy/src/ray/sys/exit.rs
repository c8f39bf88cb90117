//! Exit handlers that run before those of Ray's libraries.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

/// An exit handler. Its first argument is the exit status.
pub(crate) type AtExit = extern "C" fn(c_int, *mut c_void);

unsafe extern "C" {
    /// A glibc function. Ray requires glibc as well.
    fn on_exit(function: AtExit, argument: *mut c_void) -> c_int;
}

/// Registers `handler` to run when the process exits, before the exit handlers of Ray's libraries.
///
/// The libraries register more handlers as they are used, and handlers run in reverse order of
/// registration. So this function is called with each use of Ray, and registers `handler` again at
/// the first, second, fourth, eighth … use.
pub(crate) fn at_exit(handler: AtExit) {
    static USES: AtomicUsize = AtomicUsize::new(0);
    if (USES.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
        // SAFETY: `handler` is a function that lives as long as the program, and may be called at
        // any time and repeatedly: it catches panics, and checks first whether the process is still
        // connected. If it cannot be registered, Ray's own processes detect that this one has
        // ended.
        let _registered = unsafe { on_exit(handler, std::ptr::null_mut()) };
    }
}

/// Ends a process that is exiting, without running the remaining exit handlers. Flushes C's output
/// streams.
pub(crate) fn exit_at_once(status: c_int) -> ! {
    // SAFETY: may be called at any time, with null for all streams; their locks are free in a fork.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    // SAFETY: ends the process in any state.
    unsafe { libc::_exit(status) }
}
