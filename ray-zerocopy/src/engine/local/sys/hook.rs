//! Becoming a worker before `main`.
//!
//! The `main` of a test or a benchmark is not ours, so a worker cannot be started there. A constructor runs before any
//! `main`, and in a process that was not started as a worker it does nothing.

use crate::engine::local::worker;

// Among the constructors without a priority, not before them, which is where `ctor` would put it: those of crates that
// use this one (registries of types, say) have run then, since a linker is given a crate before what it uses.
#[ctor::ctor(unsafe, link_section = ".init_array")]
fn become_a_worker() {
    if let Some(socket) = worker::socket() {
        // SAFETY: `SIG_IGN` for SIGPIPE is what Rust's runtime sets before `main`, which this process never reaches.
        // No other thread runs yet, and no handler is replaced that anybody else has set.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
        worker::run(socket)
    }
    #[cfg(feature = "ray")]
    crate::ray::become_a_worker();
}
