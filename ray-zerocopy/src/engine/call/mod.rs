//! A call, and how its result is delivered.
//!
//! | file | what |
//! | --- | --- |
//! | `waiter` | the caller of a call: it gets one result, and may cancel |
//! | `items` | the items of a call that returns a stream |
//! | `batch/` | calls that are put together, and run as one |

pub(crate) mod batch;
pub(crate) mod items;
pub(crate) mod waiter;

use crate::engine::program::Program;
use crate::error::call::CallError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;

use self::batch::reply::{BatchReply, RunningBatch};
use self::items::Items;
use self::waiter::Waiter;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::sys::entry::FnToken;
use crate::engine::trace::remote::CallContext;
use crate::error::call::Worker;
use crate::panics;

/// The result of a call, as an engine delivers it.
pub(crate) type CallResult = Result<Incoming, CallError>;

/// Where the result of a call goes.
pub(crate) enum Reply {
    /// To its caller. A call that has waited for a batch, and runs alone, may be counted as one.
    Waiter(Arc<Waiter>, Option<RunningBatch>),
    /// To the callers of a batch.
    Batch(Box<BatchReply>),
}

impl Reply {
    /// Delivers the result, unless the callers have been answered.
    pub(crate) fn send(self, result: CallResult) {
        match self {
            Self::Waiter(waiter, running) => {
                waiter.answer(result);
                drop(running);
            }
            Self::Batch(batch) => batch.send(result),
        }
    }

    /// Records that the call is sent to a worker.
    pub(crate) fn begins(&self) {
        match self {
            Self::Waiter(waiter, _) => waiter.begins(),
            Self::Batch(batch) => batch.begins(),
        }
    }

    /// Records that the call is about to be sent to a worker, which is unknown on Ray.
    pub(crate) fn sent_to(&mut self, worker: Option<Worker>) {
        match self {
            Self::Waiter(waiter, _) => waiter.sent_to(worker),
            Self::Batch(batch) => batch.sent_to(worker),
        }
    }

    /// Records that the call waits for a worker again.
    fn requeued(&mut self) {
        match self {
            Self::Waiter(waiter, _) => waiter.requeued(),
            Self::Batch(batch) => batch.requeued(),
        }
    }

    /// What a worker process is told of the call, if it is traced.
    pub(crate) fn context(&self, worker: Option<usize>) -> Option<CallContext> {
        match self {
            Self::Waiter(waiter, _) => waiter.context(worker),
            Self::Batch(batch) => batch.context(worker),
        }
    }

    /// The span of the method, which runs in a thread of this process.
    pub(crate) fn method_span(&self, worker: Worker) -> Span {
        match self {
            Self::Waiter(waiter, _) => waiter.method_span(worker),
            Self::Batch(batch) => batch.method_span(worker),
        }
    }

    /// Returns `true` if no caller waits for the result any more because all have cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Waiter(waiter, _) => waiter.is_cancelled(),
            Self::Batch(batch) => batch.is_cancelled(),
        }
    }

    /// Where its items go, if it returns a stream.
    pub(crate) fn items(&self) -> Option<&Arc<Items>> {
        match self {
            Self::Waiter(waiter, _) => waiter.items.as_ref(),
            Self::Batch(_) => None,
        }
    }

    /// Time for which a worker may go on with a cancelled call.
    fn grace(&self) -> Option<Duration> {
        match self {
            Self::Waiter(waiter, _) => waiter.grace,
            Self::Batch(batch) => batch.grace(),
        }
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
    /// The program whose state moves to that of this call. The handler moves it.
    pub state_of: Option<u64>,
}

impl Call {
    /// Returns `true` if its deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.deadline, Some((until, _)) if until <= Instant::now())
    }

    /// Returns `true` if no caller waits for it any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.reply.is_cancelled()
    }

    /// Records that it is sent to a worker.
    pub(crate) fn begins(&self) {
        self.reply.begins();
    }

    /// Records that it is about to be sent to a worker, which is unknown on Ray.
    pub(crate) fn sent_to(&mut self, worker: Option<Worker>) {
        self.reply.sent_to(worker);
    }

    /// Records that it waits for a worker again.
    pub(crate) fn requeued(&mut self) {
        self.reply.requeued();
    }

    /// Returns `true` if it is a call of its own that is traced.
    pub(crate) fn is_traced(&self) -> bool {
        matches!(&self.reply, Reply::Waiter(waiter, _) if waiter.trace().is_some())
    }

    /// What a worker process is told of it, if it is traced.
    pub(crate) fn context(&self, worker: Option<usize>) -> Option<CallContext> {
        self.reply.context(worker)
    }

    /// Returns `true` if its reader has items of it, so that it cannot be repeated.
    pub(crate) fn has_items(&self) -> bool {
        self.reply.items().is_some_and(|items| items.has_begun())
    }

    /// Time for which a worker may go on with it after it was cancelled.
    #[cfg(feature = "ray")]
    pub(crate) fn grace(&self) -> Option<Duration> {
        self.reply.grace()
    }

    /// Limits a cancelled call to its grace period. Returns the end of that.
    pub(crate) fn limit_to_grace(&mut self, now: Instant) -> Option<Instant> {
        let grace = self.reply.grace()?;
        let until = now.checked_add(grace)?;
        let is_earlier = self.deadline.is_none_or(|(deadline, _)| until < deadline);
        is_earlier.then(|| self.deadline = Some((until, grace)))?;
        Some(until)
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
    /// Receives and delivers the result or the next item, unless another thread does. May block until it
    /// is there, or return earlier. `has_arrived` returns whether it is there. Returns the right to receive
    /// what follows an item, if the caller keeps it.
    fn receive(self: Box<Self>, has_arrived: &dyn Fn() -> bool) -> Option<Box<dyn Receive>>;

    /// Receives and delivers the result if it arrives within some microseconds, for a caller that must
    /// not block. Otherwise returns the right to the engine.
    fn receive_soon(self: Box<Self>, has_arrived: &dyn Fn() -> bool);

    /// Returns `true` if no other thread receives the result as long as this value exists.
    fn is_exclusive(&self) -> bool {
        true
    }
}

/// Result of submitting a call. If the call was accepted, contains the caller's right to receive
/// the result, if the caller has it. Otherwise contains the call and the error.
pub(crate) type Submitted = Result<Option<Box<dyn Receive>>, Box<(Call, CallError)>>;
