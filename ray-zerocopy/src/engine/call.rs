//! A call, and how its result is delivered.

use super::program::Program;
use crate::error::call::CallError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Incoming, Outgoing};
use super::sys::entry::FnToken;
use crate::panics;

/// A call to run on a worker.
pub(crate) struct Call {
    pub program: Arc<Program>,
    pub method: &'static str,
    pub handler: FnToken,
    pub args: Outgoing,
    pub reply: oneshot::Sender<Result<Incoming, CallError>>,
    pub deadline: Option<(Instant, Duration)>,
    /// Maximum number of attempts when workers die: 1 for actors.
    pub allowed: u32,
    pub attempts: u32,
    /// Number of times it was assigned to a process that exited before it received the call.
    pub unheard: u32,
    /// Whether the worker is an actor. Used for error messages.
    pub actor: bool,
    /// Index of the worker that has to run it, for a call to one actor.
    pub pinned: Option<usize>,
}

impl Call {
    /// Returns `true` if its deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.deadline, Some((until, _)) if until <= Instant::now())
    }

    /// Delivers the result. A caller that has stopped waiting is ignored.
    pub(crate) fn answer(self, result: Result<Incoming, CallError>) {
        // Sending wakes the caller and may drop the program, which runs user code. A panic in it
        // must not take the engine down.
        panics::caught(move || self.reply.send(result).ok()).ok();
    }
}

/// The caller's exclusive right to receive the result of its call. Dropping it returns the right to
/// the engine.
pub(crate) trait Receive: Send {
    /// Receives and delivers the result, unless another thread does. May block until the result is
    /// there.
    fn receive(self: Box<Self>);
}

/// Result of submitting a call. If the call was accepted, contains the caller's right to receive
/// the result, if the caller has it. Otherwise contains the call and the error.
pub(crate) type Submitted = Result<Option<Box<dyn Receive>>, Box<(Call, CallError)>>;
