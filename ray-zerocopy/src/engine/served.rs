//! TODO.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Incoming, Outgoing};
use super::sys::entry::FnToken;
use crate::arena::arena::Arena;
use crate::error::graph::ReplayError;
use crate::error::load::LoadError;
use crate::tensor::copied::CopiedTensor;

/// What a program's loader gets.
pub(crate) struct LoadRequest {
    pub arena: Arena,
    pub device: String,
    pub strict: bool,
}

/// What a program's loader gives.
pub(crate) struct LoadedProgram {
    pub served: Box<dyn Served>,
    pub copied: Vec<CopiedTensor>,
    pub decoding: Duration,
}

/// A loaded program: the pipeline behind it is known to the wrappers only.
pub(crate) trait Served {
    /// Runs a method.
    fn call(&mut self, handler: &FnToken, arguments: Incoming) -> Result<Outgoing, MethodError>;
}

/// Loads a program in a worker. Sent as a token.
pub(crate) type Loader = fn(LoadRequest) -> Result<LoadedProgram, LoadError>;

/// Why a method has no result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum MethodError {
    Panicked(String),
    /// The arguments or the result could not be turned into values or bytes.
    Wire {
        what: String,
        reason: String,
    },
    /// The graph did not run.
    Graph(ReplayError),
}
