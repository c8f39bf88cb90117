//! Becoming a worker before `main`.
//!
//! The `main` of a test or a benchmark is not ours, so a worker cannot be started there. A constructor runs before any
//! `main`, and in a process that was not started as a worker it does nothing.

use crate::engine::local::worker;

#[ctor::ctor(unsafe)]
fn become_a_worker() {
    if let Some(socket) = worker::socket() {
        // SAFETY: `SIG_IGN` for SIGPIPE is what Rust's runtime sets before `main`, which this process never reaches.
        // No other thread runs yet, and no handler is replaced that anybody else has set.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        worker::run(socket)
    }
}
