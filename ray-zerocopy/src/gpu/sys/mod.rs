//! The CUDA driver: the only unsafe code of `gpu`.
//!
//! | file | what |
//! | --- | --- |
//! | `api` | the driver's functions, found by the dynamic loader |
//! | `context` | a GPU, and its primary context in this process |
//! | `memory` | memory of a GPU that processes pass as a descriptor, and its mappings |
//! | `staging` | page-locked memory and streams, for uploads |
//! | `overlay` | makes burn's next allocation a mapping of this process: `overlay.c` |
//!
//! The driver is loaded at run time, so programs with the feature `gpu` start on machines without it.

#![allow(unsafe_code)]

pub(super) mod api;
pub(super) mod context;
pub(super) mod memory;
#[cfg(feature = "cuda")]
pub(super) mod overlay;
pub(super) mod staging;
