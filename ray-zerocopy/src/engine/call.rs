//! TODO.

use super::program::Program;
use crate::error::call::CallError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Incoming, Outgoing};
use super::sys::entry::FnToken;
use crate::panics;

/// One call on its way to a worker.
pub(crate) struct Call {
    pub program: Arc<Program>,
    pub method: &'static str,
    pub handler: FnToken,
    pub args: Outgoing,
    pub reply: oneshot::Sender<Result<Incoming, CallError>>,
    pub deadline: Option<(Instant, Duration)>,
    /// How often the call may be tried when workers die: 1 for actors.
    pub allowed: u32,
    pub attempts: u32,
    /// How often it was given to a process that was gone before it heard of it.
    pub unheard: u32,
    /// Whether the worker is an actor, for the words of an error.
    pub actor: bool,
    /// The one worker that has to run it, for a call to one actor.
    pub pinned: Option<usize>,
}

impl Call {
    /// Whether its deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.deadline, Some((until, _)) if until <= Instant::now())
    }

    /// Answers. A caller that no longer waits is no error.
    pub(crate) fn answer(self, result: Result<Incoming, CallError>) {
        // Whoever waits is woken here, and the program may go: code of others, whose panic is not the engine's.
        drop(panics::caught(move || drop(self.reply.send(result))));
    }
}

/// The right of a caller to receive the answer to its call. Dropped, the right is the engine's.
pub(crate) trait Receive: Send {
    /// Receives the answer, and delivers it, unless somebody else does. May block until it is there.
    fn receive(self: Box<Self>);
}

/// A call that was taken, with the right to its answer if it is the caller's; or that was not.
pub(crate) type Submitted = Result<Option<Box<dyn Receive>>, Box<(Call, CallError)>>;
