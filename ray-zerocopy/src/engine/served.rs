//! The worker's side of a program: loading it, and running a method.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Incoming, Outgoing};
use super::sys::entry::FnToken;
use crate::arena::arena::Arena;
use crate::error::graph::ReplayError;
use crate::error::load::LoadError;
use crate::tensor::copied::CopiedTensor;

/// Arguments of a program's loader.
pub(crate) struct LoadRequest {
    pub arena: Arena,
    pub device: String,
    pub strict: bool,
}

/// Result of a program's loader.
pub(crate) struct LoadedProgram {
    pub served: Box<dyn Served>,
    pub copied: Vec<CopiedTensor>,
    pub decoding: Duration,
}

/// A loaded program. Its pipeline type is only known to wrappers.
pub(crate) trait Served {
    /// Runs a method.
    fn call(&mut self, handler: &FnToken, arguments: Incoming) -> Result<Outgoing, MethodError>;
}

/// A function that loads a program in a worker. Sent as a token.
pub(crate) type Loader = fn(LoadRequest) -> Result<LoadedProgram, LoadError>;

/// Why a method did not return a result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum MethodError {
    Panicked(String),
    /// The arguments or the result could not be serialised or deserialised.
    Wire {
        what: String,
        reason: String,
    },
    /// The graph could not be run.
    Graph(ReplayError),
}
