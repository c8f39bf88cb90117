//! Signal handling in a worker.

use std::ffi::c_int;
use std::mem::MaybeUninit;

/// Sets up a worker's handling of signals that are meant for its owner, or for a program at a
/// terminal.
///
/// | signal | action | reason |
/// | --- | --- | --- |
/// | SIGPIPE | ignored | as Rust's runtime does before `main` |
/// | SIGTTOU, SIGTTIN | ignored | a worker is a background process: writing to the terminal, or reading from it, would stop it |
/// | SIGTERM, SIGINT, SIGHUP | empty handler | a supervisor sends these to every process of a service. The owner decides: a worker ends with it |
///
/// The last three have an empty handler because programs that a worker starts inherit ignored
/// signals, but not handlers.
pub(crate) fn prepare() {
    for signal in [libc::SIGPIPE, libc::SIGTTOU, libc::SIGTTIN] {
        // SAFETY: ignoring a signal replaces no handler: no other code of this process has run that
        // could have set one.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        if !is_ignored(signal) {
            install_empty_handler(signal);
        }
    }
}

extern "C" fn empty_handler(_: c_int) {}

/// Returns `true` if the signal is ignored, as `nohup` requests.
fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, the call only writes the current one.
    if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so it has written the action.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

fn install_empty_handler(signal: c_int) {
    // SAFETY: all zeros is a valid `sigaction`: the default handler, an empty mask, and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = empty_handler as extern "C" fn(c_int) as usize;
    // Interrupted system calls are restarted.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler does nothing, which is safe at any time, and has the type of a handler
    // without SA_SIGINFO.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}
