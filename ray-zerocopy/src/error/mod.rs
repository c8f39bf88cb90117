//! The public errors, one enum per operation, as plain data that can be sent between processes.
//!
//! They are `Clone + PartialEq` and hold texts instead of sources, because a worker sends them to its owner. [`Error`] is the one type for
//! `?`.

pub(crate) mod arena;
pub(crate) mod call;
pub(crate) mod checkpoint;
pub(crate) mod device;
pub(crate) mod graph;
pub(crate) mod load;
#[cfg(feature = "ray")]
pub(crate) mod ray;
pub(crate) mod report;
pub(crate) mod script;
pub(crate) mod share;
pub(crate) mod ticket;
pub(crate) mod trace;
pub(crate) mod value;

pub use self::arena::ArenaError;
pub use self::call::{CallPart, CallPhase, StartError};
pub use self::checkpoint::CheckpointError;
pub use self::device::DeviceError;
pub use self::load::LoadError;
pub use self::report::ReportError;
pub use self::share::ShareError;
pub use self::ticket::TicketError;

use self::call::CallError;
use self::graph::{GraphError, ReplayError};
use self::script::ScriptError;
use self::trace::TraceError;
use self::value::ValueError;

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
    Ray(#[from] self::ray::RayError),
    /// A wrapper could not be exported, or a ticket not opened.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// A report could not be made.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The name of a type as arenas and errors write it.
pub(crate) fn type_name<T: ?Sized>() -> String {
    std::any::type_name::<T>().to_owned()
}
