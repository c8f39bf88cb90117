//! Errors of decoding and running graphs.

use serde::{Deserialize, Serialize};

use super::arena::ArenaError;
use super::device::DeviceError;
use super::load::LoadError;
use super::script::ScriptError;

/// Error of opening a traced graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GraphError {
    /// The arena or the file does not contain a graph.
    #[error(
        "expected a traced graph, found {}; create a graph with `jit::trace`, and write it with `save`",
        if .found.is_empty() { "a packed checkpoint" } else { .found }
    )]
    NoGraph {
        /// What the arena or the file contains.
        found: String,
    },
    /// The graph has another format, or was made for another version of burn.
    #[error("the graph has {found}, but this program requires {expected}; trace it again with this version")]
    Version {
        /// Format and version of burn of the graph.
        found: String,
        /// Format and version of burn that this program requires.
        expected: String,
    },
    /// The bytes are not a valid graph.
    #[error("the graph is corrupted: {reason}")]
    Corrupted {
        /// What is wrong.
        reason: String,
    },
    /// An option of compiling does not fit the graph.
    #[error("{option} was given to compile the graph, expected {expected}")]
    Option {
        /// The option.
        option: String,
        /// What it may be.
        expected: String,
    },
    /// A weight is missing, or has another type or shape.
    #[error("constant `{path}` of the graph {reason}")]
    Constant {
        /// Path of the weight.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The arena cannot be read, or fails validation.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// Error of loading or running a graph or a TorchScript module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReplayError {
    /// The device is not available.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device cannot run a compiled graph.
    #[error("a compiled graph runs on `cpu`, and not on `{device}`; load the graph that it was compiled from there")]
    Compiled {
        /// The device.
        device: String,
    },
    /// The device does not support graphs.
    #[error("graphs do not run on `{device}`; they run on `cpu`, `cuda` and `wgpu`")]
    NoInterpreter {
        /// The device.
        device: String,
    },
    /// The device is not supported by LibTorch.
    #[error("TorchScript modules do not run on `{device}`; they run on `cpu` and `libtorch:cuda:0`")]
    NoLibTorch {
        /// The device.
        device: String,
    },
    /// The weights could not be uploaded to the device.
    #[error("the weights could not be uploaded to the device: {reason}")]
    Upload {
        /// The device's error.
        reason: String,
    },
    /// The graph cannot be opened.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The TorchScript module cannot be loaded.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// There is no method of this name.
    #[error("there is no method `{name}`; there is {found}")]
    Method {
        /// The name.
        name: String,
        /// The methods that exist.
        found: String,
    },
    /// A method of a TorchScript module failed.
    #[error("`{method}` failed: {reason}")]
    Failed {
        /// The method.
        method: String,
        /// LibTorch's error.
        reason: String,
    },
    /// An input is missing, or has an unknown name.
    #[error("input `{name}` {reason}; the graph takes {expected}")]
    Inputs {
        /// Name of the input.
        name: String,
        /// What is wrong.
        reason: String,
        /// The inputs that the graph takes.
        expected: String,
    },
    /// An input has another type or shape than the graph takes.
    #[error("input `{name}` is {found}, and the graph takes {expected}")]
    Input {
        /// Name of the input.
        name: String,
        /// The expected type and shape.
        expected: String,
        /// The type and shape that were given.
        found: String,
    },
    /// Calls of the graph or module cannot be put together.
    #[error("calls cannot be put together: {reason}")]
    NotBatchable {
        /// The reason.
        reason: String,
    },
    /// An operation failed.
    #[error("operation {number} ({operation}) failed: {reason}")]
    Operation {
        /// Index of the operation.
        number: usize,
        /// Name of the operation.
        operation: String,
        /// The backend's error.
        reason: String,
    },
    /// At the sizes of the inputs, a number of an operation is out of range.
    #[error("operation {number} ({operation}) cannot run at {sizes}: {reason}")]
    Sizes {
        /// Index of the operation.
        number: usize,
        /// Name of the operation.
        operation: String,
        /// The sizes.
        sizes: String,
        /// The reason.
        reason: String,
    },
}

impl ReplayError {
    /// The error of a load that could not upload weights.
    pub(crate) fn of_upload(error: LoadError) -> Self {
        match error {
            LoadError::Upload { reason } => Self::Upload { reason },
            error => Self::Upload { reason: error.to_string() },
        }
    }
}
