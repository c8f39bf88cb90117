//! What signals do in a worker.

use std::ffi::c_int;
use std::mem::MaybeUninit;

/// Sets what a worker does about signals that are meant for its owner, or for a program at a terminal.
///
/// | signal | what | why |
/// | --- | --- | --- |
/// | SIGPIPE | ignored | as Rust's runtime does before `main` |
/// | SIGTTOU, SIGTTIN | ignored | a worker is a background process: printing to the terminal, or looking at it, would stop it |
/// | SIGTERM, SIGINT, SIGHUP | nothing | a supervisor sends these to every process of a service. The owner decides: a worker ends with it |
///
/// The last three have a handler that does nothing, since programs that a worker starts inherit what is ignored, but no handlers.
pub(crate) fn prepare() {
    for signal in [libc::SIGPIPE, libc::SIGTTOU, libc::SIGTTIN] {
        // SAFETY: to ignore a signal replaces no handler: no other code of this process has run that could have set one.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        if !is_ignored(signal) {
            leave_to_owner(signal);
        }
    }
}

extern "C" fn nothing(_: c_int) {}

/// Whether a signal is ignored, as `nohup` asks for.
fn is_ignored(signal: c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action, the call writes the present one.
    if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so that it has written the action.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

fn leave_to_owner(signal: c_int) {
    // SAFETY: all zeros is a `sigaction`: the default handler, an empty mask, and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(c_int) as usize;
    // System calls that it interrupts go on.
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler does nothing, which is safe at any time, and has the type that a handler without SA_SIGINFO has.
    unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
}
