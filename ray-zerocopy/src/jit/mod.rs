//! Traced graphs: recorded forward passes, which run without the pipeline's Rust type.
//!
//! [`trace()`] records a pipeline and returns a [`TracedGraph`]. [`Executable`] runs the graph in
//! this process, [`JitTaskWrapper`] and [`JitActorWrapper`] in worker processes. Weights are
//! borrowed from an arena, like those of a pipeline, and are stored once.
//!
//! | file | what |
//! | --- | --- |
//! | `trace/` | creates a graph from a pipeline and example inputs |
//! | `graph/` | the graph as data, and its execution |
//! | `compile/` | compiles a graph: packed weights and fused operations |
//! | `traced_graph` | a graph with its weights, and its file |
//! | `torchscript/` | TorchScript modules |
//! | `model` | a graph or a module, whichever a file contains |
//! | `executable` | a graph or a module, loaded on a device |
//! | `field` | a graph as a field of a pipeline |
//! | `program`, `pipeline`, `wrapper` | a graph or a module on engines |
//! | `batch` | calls that are put together |

mod batch;
mod compile;
pub(crate) mod executable;
mod field;
pub(crate) mod graph;
pub(crate) mod model;
pub(crate) mod pipeline;
pub(crate) mod program;
pub(crate) mod torchscript;
pub(crate) mod trace;
pub(crate) mod traced_graph;
pub(crate) mod wrapper;

pub use self::compile::{CalibratedLayer, Calibration, Compile, instruction_set};
pub use self::executable::{Executable, Recorded};
pub use self::field::{GraphField, GraphSpec};
pub use self::graph::info::{GraphInfo, Operand, PortInfo, StepInfo, TensorInfo, WeightInfo};
pub use self::graph::profile::{Profile, StepProfile};
pub use self::graph::weight_format::WeightFormat;
pub use self::model::{Model, open};
pub use self::pipeline::GraphCaller;
pub use self::program::Runnable;
pub use self::torchscript::TorchScript;
pub use self::torchscript::signature::{ScriptArgument, ScriptMethod};
pub use self::trace::{Tracer, trace};
pub use self::traced_graph::TracedGraph;
pub use self::wrapper::{JitActor, JitActorWrapper, JitActors, JitCanary, JitTaskWrapper, JitTicket};
pub use crate::error::calibration::CalibrationError;
pub use crate::error::graph::{GraphError, ReplayError};
pub use crate::error::script::ScriptError;
pub use crate::error::trace::TraceError;
pub use crate::error::value::ValueError;
pub use crate::tensor::value::{ElementKind, IntoOutputs, Value, Values};
