//! One type for `?`: what any operation can fail with.

use crate::arena::ArenaError;
use crate::checkpoint::CheckpointError;
use crate::device::DeviceError;
use crate::engine::CallError;
use crate::jit::{GraphError, ReplayError, ScriptError, TraceError, ValueError};
use crate::pipeline::{LoadError, ShareError};
use crate::report::ReportError;

/// What an operation of this crate can fail with. Each operation has an enum of its own, with a variant for each cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pipeline could not be shared.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A pipeline could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A forward pass could not be recorded.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A graph could not be read.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A TorchScript module could not be opened.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// A graph did not run.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A tensor is not there, or not what was asked for.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A call has no result.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An arena could not be opened or trusted.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A checkpoint could not be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Ray did not do what it was asked.
    #[cfg(feature = "ray")]
    #[error(transparent)]
    Ray(#[from] crate::ray::RayError),
    /// A report could not be made.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
