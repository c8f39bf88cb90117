//! Process exit: `atexit` handlers, and exit without running them.

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
