//! Fixtures of the integration tests: pipelines, process control, and memory figures of the kernel.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "test code")]

pub mod chaos;
pub mod conformance;
pub mod engines;
pub mod gpu_weights;
pub mod heap;
pub mod holdings;
pub mod memory;
pub mod models;
pub mod process_tree;
pub mod seccomp;
pub mod stand_in;
#[cfg(feature = "torchscript")]
pub mod torchscript;
pub mod traceable;
pub mod tracer;
