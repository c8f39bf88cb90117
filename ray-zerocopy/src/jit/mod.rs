//! Traced graphs: a forward pass that was recorded once, and runs without its pipeline's Rust type.
//!
//! [`trace()`] records, [`TracedGraph`] is what it gives, [`Executable`] runs it in this process, and [`JitTaskWrapper`] and
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

pub(crate) mod executable;
pub(crate) mod graph;
pub(crate) mod model;
pub(crate) mod pipeline;
pub(crate) mod program;
pub(crate) mod torchscript;
pub(crate) mod trace;
pub(crate) mod traced_graph;
pub(crate) mod wrapper;

pub use self::executable::Executable;
pub use self::graph::info::{GraphInfo, Operand, PortInfo, StepInfo};
pub use self::model::{Model, open};
pub use self::pipeline::GraphCaller;
pub use self::program::Runnable;
pub use self::torchscript::TorchScript;
pub use self::torchscript::signature::{ScriptArgument, ScriptMethod};
pub use self::trace::{Tracer, trace};
pub use self::traced_graph::TracedGraph;
pub use self::wrapper::{JitActor, JitActorWrapper, JitActors, JitTaskWrapper, JitTicket};
pub use crate::error::graph::{GraphError, ReplayError};
pub use crate::error::script::ScriptError;
pub use crate::error::trace::TraceError;
pub use crate::error::value::ValueError;
pub use crate::tensor::value::{ElementKind, IntoOutputs, Value, Values};
