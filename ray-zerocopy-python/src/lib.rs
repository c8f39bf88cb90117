//! A pipeline of [`ray_zerocopy`] as a Python module: one line in a crate of your own, which maturin makes a wheel of.
//!
//! ```ignore
//! ray_zerocopy_python::export!(embedder, Embedder, open(folder) = Embedder::open);
//! ```
//!
//! | in Python | what it is |
//! | --- | --- |
//! | `embedder.Embedder.open(folder)` | the pipeline, with every method of its `#[ray_zerocopy::remote]` block |
//! | `embedder.ActorWrapper(pipeline)` | its weights in Ray's object store, to be sent to anyone; `.load()` borrows them |
//! | `embedder.TaskWrapper(pipeline)` | its methods as Ray tasks |
//! | `embedder.PanicError`, `embedder.PipelineError` | a panic, and a `Result::Err`, of a method |
//! | `embedder.stubs()` | the text of `embedder.pyi`, made of the methods |
//! | `embedder.traffic(pipeline)` | how many arrays have been borrowed and how many copied |
//! | `embedder.copied(pipeline)` | bytes of weights that could not be borrowed |
//!
//! Traced graphs and TorchScript modules need no crate of your own: the wheel `ray-zerocopy-burn`, in the folder `wheel`, runs any.
//!
//! Arrays go in and out without a copy where that is possible: see `export!`.
//!
//! # Features
//!
//! ## `ray`
//!
//! The whole crate. Needs Python 3.11 or later. Without the feature the crate is empty, so that a
//! workspace builds on machines without Python.

#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "ray")]
mod constructor;
#[cfg(feature = "ray")]
mod convert;
#[cfg(feature = "ray")]
mod export;
#[cfg(feature = "ray")]
mod graph;
#[cfg(feature = "ray")]
mod native;
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
