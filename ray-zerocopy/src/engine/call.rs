//! A call, and how its result is delivered.

use super::program::Program;
use crate::error::call::CallError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::member::Waiter;
use super::batch::reply::{BatchReply, RunningBatch};
use super::message::{Incoming, Outgoing};
use super::sys::entry::FnToken;
use crate::panics;

/// The result of a call, as an engine delivers it.
pub(crate) type CallResult = Result<Incoming, CallError>;

/// Where the result of a call goes.
pub(crate) enum Reply {
    /// To its caller.
    Caller(oneshot::Sender<CallResult>),
    /// To the caller of a call that has waited for a batch, and runs alone.
    Waiter(Arc<Waiter>, Option<RunningBatch>),
    /// To the callers of a batch.
    Batch(Box<BatchReply>),
}

impl Reply {
    /// Returns a reply, and the receiver of the result that is sent to it.
    pub(crate) fn channel() -> (Self, oneshot::Receiver<CallResult>) {
        let (sender, receiver) = oneshot::channel();
        (Self::Caller(sender), receiver)
    }

    /// Delivers the result. A caller that has stopped waiting is ignored.
    pub(crate) fn send(self, result: CallResult) {
        // Sending wakes the caller, which runs user code. A panic in it must not take the engine
        // down.
        let send = move || match self {
            Self::Caller(sender) => drop(sender.send(result)),
            Self::Waiter(waiter, running) => {
                waiter.answer(result);
                drop(running);
            }
            Self::Batch(batch) => batch.send(result),
        };
        panics::caught(send).ok();
    }
}

/// A call to run on a worker.
pub(crate) struct Call {
    pub program: Arc<Program>,
    pub method: &'static str,
    pub handler: FnToken,
    pub args: Outgoing,
    pub reply: Reply,
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
    /// Whether it enters the engine's queue even if that is full: it has waited for a batch before,
    /// or is a ticket of a batch.
    pub is_admitted: bool,
}

impl Call {
    /// Returns `true` if its deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.deadline, Some((until, _)) if until <= Instant::now())
    }

    /// Delivers the result. A caller that has stopped waiting is ignored.
    pub(crate) fn answer(self, result: CallResult) {
        let Self { reply, program, args, .. } = self;
        reply.send(result);
        // Dropping the program may run user code as well.
        panics::caught(move || drop((program, args))).ok();
    }
}

/// The caller's exclusive right to receive the result of its call. Dropping it returns the right to
/// the engine.
pub(crate) trait Receive: Send {
    /// Receives and delivers the result, unless another thread does. May block until the result is
    /// there, or return earlier. `has_arrived` returns whether it is there.
    fn receive(self: Box<Self>, has_arrived: &dyn Fn() -> bool);

    /// Returns `true` if no other thread receives the result as long as this value exists.
    fn is_exclusive(&self) -> bool {
        true
    }
}

/// Result of submitting a call. If the call was accepted, contains the caller's right to receive
/// the result, if the caller has it. Otherwise contains the call and the error.
pub(crate) type Submitted = Result<Option<Box<dyn Receive>>, Box<(Call, CallError)>>;
