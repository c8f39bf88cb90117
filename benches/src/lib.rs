//! What the benchmarks share: their options, the machine they ran on, figures, tables, and child processes.
//!
//! Nothing here measures anything: that is in `benches/`, one file for each question. `ipc` asks what the transport
//! costs beside another crate's, `calls` what a call costs beside the method itself, and `sharing` what the memory
//! costs beside a copy for each worker.

pub mod child;
pub mod links;
pub mod machine;
pub mod options;
pub mod stats;
pub mod table;

pub use child::Reaped;
pub use machine::Machine;
pub use options::Common;
pub use stats::{Samples, time};
pub use table::Table;
