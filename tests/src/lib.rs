//! Pipelines that the tests share, and the kernel's figures.

pub mod memory;
pub mod models;
