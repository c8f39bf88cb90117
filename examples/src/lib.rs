//! What the examples of ray-zerocopy have in common.
//!
//! - [`minilm`]: a sentence encoder written in plain burn, the model most examples share
//! - [`corpus`]: some two hundred sentences to search in
//! - [`silero`]: a TorchScript module that hears speech, and a signal for it
//! - [`published`]: checkpoints of PyTorch, for the tests
//! - [`wheel`]: files that come from PyPI

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod corpus;
pub mod minilm;
pub mod published;
pub mod search;
pub mod silero;
pub mod wheel;
