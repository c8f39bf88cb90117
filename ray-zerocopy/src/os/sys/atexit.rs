//! Process exit: exit handlers, and exit without running them.

#[cfg(feature = "ray")]
use std::ffi::{c_int, c_void};
#[cfg(feature = "ray")]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Registers a handler for normal process exit: `exit`, or the end of `main`. Returns `true` if it
/// was registered.
pub(crate) fn at_exit(handler: extern "C" fn()) -> bool {
    // SAFETY: `atexit` may be called at any time, from any thread, and takes any function of this
    // type. The handler is code of this executable, which stays mapped until the end, and cannot
    // unwind: `extern "C"` aborts instead.
    unsafe { libc::atexit(handler) == 0 }
}

/// Ends this process with an exit status, without running exit handlers.
pub(crate) fn at_once(status: i32) -> ! {
    // SAFETY: `_exit` may be called at any time, and does not return.
    unsafe { libc::_exit(status) }
}

/// An exit handler that gets the exit status as its first argument.
#[cfg(feature = "ray")]
pub(crate) type OnExit = extern "C" fn(c_int, *mut c_void);

#[cfg(feature = "ray")]
unsafe extern "C" {
    /// A glibc function. Ray requires glibc as well.
    fn on_exit(function: OnExit, argument: *mut c_void) -> c_int;
}

/// Registers `handler` to run before the exit handlers of a library that registers more of them as
/// it is used.
///
/// Handlers run in reverse order of registration. So this function is called with each use of the
/// library, and registers `handler` again at the first, second, fourth, eighth … use. The handler
/// must bear being called repeatedly.
#[cfg(feature = "ray")]
pub(crate) fn at_exit_at_each_use(handler: OnExit) {
    static USES: AtomicUsize = AtomicUsize::new(0);
    if (USES.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
        // SAFETY: `handler` is a function that lives as long as the program, and cannot unwind:
        // `extern "C"` aborts instead. If it cannot be registered, it does not run, as after a
        // kill.
        let _registered = unsafe { on_exit(handler, std::ptr::null_mut()) };
    }
}

/// Ends a process that is exiting, without running the remaining exit handlers. Flushes C's output
/// streams.
#[cfg(feature = "ray")]
pub(crate) fn flush_and_exit(status: c_int) -> ! {
    // SAFETY: may be called at any time, with null for all streams; their locks are free in a fork.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    at_once(status)
}
