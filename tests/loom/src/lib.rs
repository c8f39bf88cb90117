//! Model checks of the local engine: the hand-over of a reply between its caller, the worker's
//! supervisor and the deadline thread.
//!
//! The files of `ray-zerocopy/src/engine/local` that share state between threads are compiled here
//! a second time, unchanged. What they import is replaced: locks and the clock (`os::sync`) by
//! those of the checker [`loom`], and sockets, processes, programs and messages by simulations
//! without input or output. So `loom` can run every interleaving of the threads, up to a number of
//! preemptions, and this package builds in seconds.
//!
//! | module | what it replaces |
//! | --- | --- |
//! | `os::sync` | locks; a wait with a timeout lets the time pass |
//! | `engine::call` | a call and its answer; a call that is dropped without an answer is a failure |
//! | `engine::local::transport` | the socket, and the worker behind it, which follows a script |
//! | `engine::local::process` | worker processes: each start gets the next script |
//!
//! `cargo test --manifest-path tests/loom/Cargo.toml` runs the checks.

#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]
#![allow(dead_code, reason = "the engine has parts that no model needs")]

mod engine;
mod error;
mod os;

mod panics {
    //! No call of a model panics.

    pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
        Ok(call())
    }
}
