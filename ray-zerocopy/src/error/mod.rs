//! The public errors: one enum per operation, and [`Error`] as the one type for `?`.
//!
//! Errors cross process boundaries, since a worker sends them to its owner. So they are plain data:
//! reasons of the operating system and of libraries are carried as text (`String`), and `source()`
//! returns only errors of this crate. Equality of errors is for tests. It compares these texts,
//! which are not promised to be stable.

pub(crate) mod arena;
pub(crate) mod calibration;
pub(crate) mod call;
pub(crate) mod checkpoint;
pub(crate) mod device;
pub(crate) mod graph;
pub(crate) mod holder;
pub(crate) mod load;
pub(crate) mod lora;
#[cfg(feature = "ray")]
pub(crate) mod ray;
pub(crate) mod report;
pub(crate) mod script;
pub(crate) mod share;
pub(crate) mod swap;
pub(crate) mod ticket;
pub(crate) mod trace;
pub(crate) mod value;

pub use self::arena::ArenaError;
pub use self::call::{CallPart, CallPhase, StartError};
pub use self::checkpoint::CheckpointError;
pub use self::device::DeviceError;
pub use self::holder::HolderError;
pub use self::load::LoadError;
pub use self::report::ReportError;
pub use self::share::ShareError;
pub use self::swap::SwapError;
pub use self::ticket::TicketError;

use self::calibration::CalibrationError;
use self::call::CallError;
use self::graph::{GraphError, ReplayError};
use self::lora::LoraError;
use self::script::ScriptError;
use self::trace::TraceError;
use self::value::ValueError;

/// Any error of this crate. Each operation has its own enum, with a variant for each cause.
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
    /// A graph could not be calibrated.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// A TorchScript module could not be opened.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// A graph did not run.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A named tensor is missing, has another kind or rank, or cannot be read.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// A call has no result.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An arena could not be built or opened, or is not valid.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// A LoRA adapter could not be read, added or chosen.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// A checkpoint could not be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A device string is not a device, or the device is not available.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Ray, or the connection to it, failed.
    #[cfg(feature = "ray")]
    #[error(transparent)]
    Ray(#[from] self::ray::RayError),
    /// A wrapper could not be exported, or a ticket could not be opened.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// An arena could not be found by content, or kept for others.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// The weights of a wrapper could not be swapped.
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// A report could not be made.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// The `Result` of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The name of a type as arenas and errors write it.
pub(crate) fn type_name<T: ?Sized>() -> String {
    std::any::type_name::<T>().to_owned()
}
