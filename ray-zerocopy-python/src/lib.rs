//! Exports a pipeline of [`ray_zerocopy`] as a Python module, with one line in a crate that maturin
//! builds into a wheel.
//!
//! ```ignore
//! ray_zerocopy_python::export!(embedder, Embedder, open(folder) = Embedder::open);
//! ```
//!
//! | in Python | what it is |
//! | --- | --- |
//! | `embedder.Embedder.open(folder)` | the pipeline, with every method of its `#[ray_zerocopy::remote]` block |
//! | `embedder.ActorWrapper(pipeline)` | its weights in Ray's object store, to be passed to any task or actor; `.load()` borrows them |
//! | `embedder.TaskWrapper(pipeline)` | its methods as Ray tasks |
//! | `embedder.PanicError`, `embedder.PipelineError` | a panic, and a `Result::Err`, of a method |
//! | `embedder.stubs()` | the text of `embedder.pyi`, generated from the methods |
//! | `embedder.traffic(pipeline)` | the numbers of borrowed and of copied arrays, and their bytes |
//! | `embedder.copied(pipeline)` | bytes of weights that could not be borrowed |
//!
//! Traced graphs and TorchScript modules do not need a crate: the wheel `ray-zerocopy-burn`, in the
//! folder `wheel`, runs any of them.
//!
//! Arrays are passed and returned without a copy where possible: see `export!`.
//!
//! # Features
//!
//! ## `ray`
//!
//! Enables the crate. Needs Python 3.11 or later. Without the feature the crate is empty, so that a
//! workspace builds on machines without Python.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "ray")]
mod arena;
#[cfg(feature = "ray")]
mod base;
#[cfg(feature = "ray")]
mod bound;
#[cfg(feature = "ray")]
mod constructor;
#[cfg(feature = "ray")]
mod convert;
#[cfg(feature = "ray")]
mod export;
#[cfg(feature = "ray")]
mod graph;
#[cfg(feature = "ray")]
mod source;

#[cfg(feature = "ray")]
#[doc(hidden)]
pub mod __private {
    pub use crate::constructor::{Constructor, named};
    pub use crate::export::export;
    pub use crate::graph::register;
    pub use pyo3;
}
