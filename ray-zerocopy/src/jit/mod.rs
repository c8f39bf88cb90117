//! Traced graphs: a forward pass that was recorded once, and runs without its pipeline's Rust type.
//!
//! [`trace()`] records, [`TracedGraph`] is what it gives, [`Replay`] runs it in this process, and [`JitTaskWrapper`] and
//! [`JitActorWrapper`] run it in others. Weights are borrowed from an arena, as a pipeline's are; nothing is stored twice.
//!
//! | file | what |
//! | --- | --- |
//! | `trace` | pipeline and example inputs → graph |
//! | `symbol` | sizes that may differ from call to call |
//! | `passes` | what is done to a recorded graph |
//! | `graph`, `read` | the graph as data, and reading it |
//! | `info` | what a graph takes, gives and does |
//! | `traced` | a graph with its weights, and its file |
//! | `replay` | runs a graph |
//! | `value` | named tensors of any rank and kind |
//! | `script` | TorchScript modules |
//! | `opened` | a file with either |
//! | `form`, `pipeline`, `wrapper` | a graph or a module on engines |

mod error;
mod form;
mod graph;
mod info;
mod opened;
mod passes;
mod pipeline;
mod read;
mod replay;
mod script;
mod symbol;
mod trace;
mod traced;
mod value;
mod wrapper;

pub(crate) use info::info_of;
#[cfg(test)]
pub(crate) use pipeline::LOADER;
pub(crate) use pipeline::own_function;
pub(crate) use script::checked_calls;

pub use error::{GraphError, ReplayError};
pub use form::Program;
pub use info::{GraphInfo, Operand, PortInfo, StepInfo};
pub use opened::{Opened, open};
pub use replay::Replay;
pub use script::{ScriptArgument, ScriptError, ScriptMethod, TorchScript};
pub use trace::{TraceError, Tracer, trace};
pub use traced::TracedGraph;
pub use value::{TensorKindOf, Value, ValueError, Values};
pub use wrapper::{JitActor, JitActorWrapper, JitActors, JitTaskWrapper};
