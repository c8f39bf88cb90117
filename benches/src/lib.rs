//! Shared code of the benchmarks: options and output, a description of the machine, statistics, and
//! child processes.
//!
//! The measurements are in `src/bin`, one program for each question.
//!
//! | `cargo run --release -p benches --bin …` | measures |
//! | --- | --- |
//! | `memory` | memory and startup time of workers that share a model, compared with workers that copy it |
//! | `calls` | a call compared with a bare socket, and a tensor compared with a copy in memory |
//! | `share` | time and memory to share the weights of a file |
//! | `ray`, with `--features ray` | calls and memory on Ray, compared with Ray's own calls and the size of the model |
//! | `jit` | a traced graph compared with its pipeline: time to run, time for a new size, memory |
//! | `compiled` | a compiled graph compared with the traced one, and with ONNX Runtime: time to run, sentences per second |
//! | `torchscript`, with `--features torchscript` | memory of a TorchScript module in workers, and burn on LibTorch compared with PyTorch |
//! | `search` | sentences per second of a real model, in one worker and in two |
//! | `elastic` | pools that grow and shrink: the first answer of an empty pool, cycles, and a burst of calls |
//! | `serving` | single sentences from many callers: calls that are put together, compared with batches made by hand |

pub mod child;
pub mod corpora;
pub mod image_models;
pub mod machine;
pub mod model;
pub mod options;
pub mod progress;
pub mod random;
pub mod stats;
pub mod table;
pub mod traced_models;

pub use child::Reaped;
pub use machine::Machine;
pub use options::{Common, Run, Target};
pub use progress::Progress;
pub use stats::{Samples, time};
pub use table::Table;
