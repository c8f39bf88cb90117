//! What the benchmarks share: their options and output, the machine they ran on, figures, and child processes.
//!
//! Nothing here measures anything: that is in `src/bin`, one program for each question.
//!
//! | `cargo run --release -p benches --bin …` | asks |
//! | --- | --- |
//! | `memory` | what workers cost in memory beside a copy of the model for each, and how soon they are there |
//! | `calls` | what a call costs beside a bare socket, and a tensor beside a copy in memory |
//! | `forward` | how fast a model computes with weights on the heap and in an arena |
//! | `search` | how many sentences a second a real model embeds, in one worker and in two |
//! | `jit` | what a traced graph costs beside its pipeline: to run, at a new size, and in memory |
//! | `torchscript` | what a TorchScript module costs in workers, and burn on LibTorch beside PyTorch |
//! | `share` | what it costs to share a file, in time and memory |
//! | `ipc` | what the transport costs beside another crate's |

pub mod child;
pub mod links;
pub mod machine;
pub mod model;
pub mod options;
pub mod progress;
pub mod stats;
pub mod table;

pub use child::Reaped;
pub use machine::Machine;
pub use options::{Common, Run, Target};
pub use progress::Progress;
pub use stats::{Samples, time};
pub use table::Table;
