//! Processes under unusual conditions: launchers, signals, missing resources.
//!
//! Most tests need their own process: they start this executable again with a role. See `role`.

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
