//! The worker's side of a program: loading it, and running a method.

use std::any::Any;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Incoming, Outgoing};
use super::sys::entry::{EntryError, FnToken};
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::arena::memory::status::MemoryStatus;
use crate::error::call::{CallError, CallPart, Worker};
use crate::error::graph::ReplayError;
use crate::error::load::LoadError;
use crate::panics;
use crate::tensor::copied::{CopiedTensor, DeviceMemory};

/// Arguments of a program's loader.
pub(crate) struct LoadRequest {
    pub arena: Arena,
    pub device: String,
    pub strict: bool,
    pub prewarm: Option<Prewarm>,
}

/// A function of the user's that a worker runs when it has loaded a pipeline, before any call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Prewarm {
    pub function: FnToken,
    /// Where it was given to the wrapper: file and line.
    pub place: String,
}

/// Result of a program's loader.
pub(crate) struct LoadedProgram {
    pub served: Box<dyn Served>,
    pub copied: Vec<CopiedTensor>,
    pub device: Option<DeviceMemory>,
    pub decoding: Duration,
    /// Time that the prewarm function has taken.
    pub prewarming: Duration,
}

/// A loaded program. Its pipeline type is only known to wrappers.
pub(crate) trait Served {
    /// Runs a method. Its items go to `items`, if it returns a stream.
    fn call(
        &mut self,
        handler: &FnToken,
        arguments: Incoming,
        items: Option<ItemSink>,
    ) -> Result<Outgoing, MethodError>;

    /// Moves the state of another generation of the same pipeline to this one, with a function of the
    /// user's.
    fn take_state(&mut self, old: &mut dyn Served, function: &FnToken) -> Result<Outgoing, MethodError>;

    /// The value itself, for a generation that takes its state.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// Runs a call that moves the state of one program to another. A worker that does not have the first one
/// has no state of it.
pub(crate) fn take_state<K: Eq + Hash, L: AsMut<dyn Served>>(
    programs: &mut HashMap<K, L>,
    from: K,
    to: K,
    function: &FnToken,
) -> Result<Outgoing, MethodError> {
    let Some(mut old) = programs.remove(&from) else { return Ok(Outgoing::default()) };
    let result = match programs.get_mut(&to) {
        Some(new) => new.as_mut().take_state(old.as_mut(), function),
        None => Err(MethodError::not_loaded()),
    };
    programs.insert(from, old);
    result
}

/// Takes the items of a method that returns a stream. Waits while the reader is too far behind.
/// Returns `false` if no reader takes more, and the reason if the item could not be sent.
pub(crate) type ItemSink = Box<dyn FnMut(Outgoing) -> Result<bool, String>>;

/// A function that loads a program in a worker. Sent as a token.
pub(crate) type Loader = fn(LoadRequest) -> Result<LoadedProgram, LoadError>;

/// Loads a program, after the memory policy has been applied to its arena.
pub(crate) fn load_program(
    arena: Arena,
    loader: &FnToken,
    device: String,
    strict: bool,
    memory: MemoryPolicy,
    prewarm: Option<Prewarm>,
) -> Result<(LoadedProgram, MemoryStatus), LoadError> {
    let no_code =
        |error: EntryError| LoadError::Rebuild { pipeline: "the pipeline".to_owned(), reason: error.to_string() };
    let load: Loader = loader.resolve().map_err(no_code)?;
    let pipeline = arena.pipeline().to_owned();
    let memory = arena.follow(memory);
    // Runs user code: `Deserialize` of the copied fields.
    let loaded = panics::caught(|| load(LoadRequest { arena, device, strict, prewarm }))
        .unwrap_or_else(|reason| Err(LoadError::Rebuild { pipeline, reason: format!("it panicked: {reason}") }))?;
    Ok((loaded, memory))
}

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

impl MethodError {
    /// The error of a call to a program that the worker does not have.
    pub(crate) fn not_loaded() -> Self {
        let reason = "the worker has not loaded the pipeline".to_owned();
        Self::Wire { what: "the call".to_owned(), reason }
    }

    /// Converts to the error of the caller.
    pub(crate) fn of(self, method: &str, worker: Worker) -> CallError {
        let method = method.to_owned();
        match self {
            Self::Panicked(message) => CallError::Panicked { method, worker, message },
            Self::Wire { what, reason } => CallError::Wire { method, part: CallPart::named(&what), reason },
            Self::Graph(error) => CallError::Graph { method, error },
        }
    }
}
