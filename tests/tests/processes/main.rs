//! Processes in surroundings that are not kind to them: what starts them, what signals they get, and what is taken from them.
//!
//! Most of it needs a process of its own, which a test starts: this executable again, in a role. See `role`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod ends;
mod forks;
mod handles;
mod launch;
mod pipeline;
mod role;
mod signals;
mod startup;
mod sys;
