//! Pipelines that the tests share, and the kernel's figures.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "test code")]

pub mod chaos;
pub mod conformance;
pub mod family;
pub mod memory;
pub mod models;
#[cfg(feature = "torchscript")]
pub mod torchscript;
pub mod traceable;
