//! Why a graph cannot be read, or run.

use serde::{Deserialize, Serialize};

use super::arena::ArenaError;
use super::device::DeviceError;
use super::script::ScriptError;

/// Why a graph cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum GraphError {
    /// The arena or the file holds something else.
    #[error("it holds no graph, but {}; graphs are made by `jit::trace`, and saved with `save`", if .found.is_empty() { "a packed checkpoint" } else { .found })]
    NoGraph {
        /// What it holds.
        found: String,
    },
    /// It was made by another version.
    #[error(
        "the graph was made by {found}, and this program runs those of {expected}; trace it again with this version"
    )]
    Version {
        /// What made it.
        found: String,
        /// What this program runs.
        expected: String,
    },
    /// Its bytes are no graph.
    #[error("the graph is corrupted: {reason}")]
    Corrupted {
        /// What is wrong.
        reason: String,
    },
    /// A weight is missing, or another one.
    #[error("constant `{path}` of the graph {reason}")]
    Constant {
        /// Its path.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The arena cannot be trusted.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

/// Why a graph did not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReplayError {
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device has no interpreter of graphs.
    #[error("graphs do not run on `{device}`; they run on `cpu`, `cuda` and `wgpu`")]
    NoInterpreter {
        /// The device.
        device: String,
    },
    /// The device is none of LibTorch's.
    #[error("TorchScript modules do not run on `{device}`; they run on `cpu` and `libtorch:cuda:0`")]
    NoLibTorch {
        /// The device.
        device: String,
    },
    /// The graph cannot be read.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The TorchScript module cannot be loaded.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// There is no method of the name.
    #[error("there is no method `{name}`; there is {found}")]
    Method {
        /// The name.
        name: String,
        /// The methods that there are.
        found: String,
    },
    /// A method of a TorchScript module failed.
    #[error("`{method}` failed: {reason}")]
    Failed {
        /// The method.
        method: String,
        /// What LibTorch said.
        reason: String,
    },
    /// An input is missing, or there is one too many.
    #[error("input `{name}` {reason}; the graph takes {expected}")]
    Inputs {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
        /// The inputs that there are.
        expected: String,
    },
    /// An input is not what the graph takes.
    #[error("input `{name}` is {found}, and the graph takes {expected}")]
    Input {
        /// Its name.
        name: String,
        /// What the graph takes.
        expected: String,
        /// What was given.
        found: String,
    },
    /// An operation failed.
    #[error("operation {number} ({operation}) failed: {reason}")]
    Operation {
        /// Which of them.
        number: usize,
        /// What it is called.
        operation: String,
        /// What the backend said.
        reason: String,
    },
    /// The sizes of the inputs make a number that an operation cannot have.
    #[error("operation {number} ({operation}) cannot be done at {sizes}: {reason}")]
    Sizes {
        /// Which of them.
        number: usize,
        /// What it is called.
        operation: String,
        /// The sizes.
        sizes: String,
        /// What is wrong.
        reason: String,
    },
}
