//! Jobs of a worker. A worker has one job at a time.
//!
//! Calls are opaque here, to the scheduler and to the state of a connection, which read them only
//! through [`QueuedCall`]. So their tests need no arena and no process.

use std::sync::Arc;
use std::time::Instant;

use super::bundle::Bundle;
use crate::engine::call::Call;
use crate::engine::program::Program;

/// The properties of a call that scheduling reads.
pub(in crate::engine) trait QueuedCall {
    /// Program that a worker loads before it can run the call.
    type Program;

    fn program(&self) -> &Arc<Self::Program>;

    /// The program's key, equal for equal programs.
    fn program_key(&self) -> u64;

    /// The index of the only worker that may run the call.
    fn pinned_to(&self) -> Option<usize>;

    fn deadline(&self) -> Option<Instant>;

    /// The counters that decide whether the call is retried.
    fn attempts(&mut self) -> Attempts<'_>;

    /// Returns `true` if the call may be retried.
    fn has_attempts_left(&self) -> bool;

    /// Returns `true` if no caller waits for it any more.
    fn is_cancelled(&self) -> bool;

    /// Limits a cancelled call to its grace period. Returns the end of that.
    fn limit_to_grace(&mut self, now: Instant) -> Option<Instant>;

    /// Records that it waits for a worker again.
    fn requeued(&mut self) {}

    /// Returns the size of its arguments in bytes if it may be sent together with other calls, or `None`
    /// if it is sent alone.
    fn bundled_size(&self) -> Option<usize>;

    /// Returns `true` if it needs no space in the queue.
    fn is_admitted(&self) -> bool;

    /// Returns `true` if the deadline has passed.
    fn is_expired(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}

/// Attempt counters of a call.
pub(in crate::engine) struct Attempts<'a> {
    /// Number of assignments to a worker, without the refunded ones.
    pub(in crate::engine) made: &'a mut u32,
    /// Maximum number of attempts.
    pub(in crate::engine) allowed: u32,
    /// Number of successive workers that ended before they received the call.
    pub(in crate::engine) undelivered: &'a mut u32,
}

impl Attempts<'_> {
    /// Refunds the attempt of an assignment that the worker never received.
    pub(in crate::engine) fn refund(&mut self) {
        *self.made -= 1;
    }

    /// Counts a process that ended after the call was sent and before it was received. The first
    /// `limit` of them in a row are free, and the next one costs the attempt. Returns `true` if the
    /// call may be retried.
    pub(in crate::engine) fn count_undelivered(&mut self, limit: u32) -> bool {
        *self.undelivered += 1;
        if *self.undelivered <= limit {
            self.refund();
            return true;
        }
        *self.undelivered = 0;
        *self.made < self.allowed
    }
}

impl QueuedCall for Call {
    type Program = Program;

    fn program(&self) -> &Arc<Program> {
        &self.program
    }

    fn program_key(&self) -> u64 {
        self.program.key
    }

    fn pinned_to(&self) -> Option<usize> {
        self.pinned
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|(deadline, _)| deadline)
    }

    fn attempts(&mut self) -> Attempts<'_> {
        Attempts { made: &mut self.attempts, allowed: self.allowed, undelivered: &mut self.unheard }
    }

    fn has_attempts_left(&self) -> bool {
        self.attempts < self.allowed && !self.has_items()
    }

    fn bundled_size(&self) -> Option<usize> {
        let is_lone = self.is_batch() || self.reply.items().is_some() || self.state_of.is_some();
        (!is_lone).then(|| self.args.segments.iter().map(|segment| segment.len()).sum())
    }

    fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled()
    }

    fn requeued(&mut self) {
        self.requeued();
    }

    fn limit_to_grace(&mut self, now: Instant) -> Option<Instant> {
        self.limit_to_grace(now)
    }
}

/// A job that has not been sent.
pub(in crate::engine) enum Job<C: QueuedCall> {
    /// Run a call. If the worker does not have its program, load that first.
    Call(C),
    /// Run several calls of a program that the worker has loaded, one after the other.
    Bundle(Vec<C>),
    /// Load the program that every worker of the pool has.
    Load(Arc<C::Program>),
    /// Free a program.
    Forget(u64),
    ShutDown,
}

/// A job that was sent to a worker that has not replied yet.
pub(in crate::engine) enum InFlight<C: QueuedCall> {
    /// Load a program. The call, if there is one, is sent next.
    Load(Arc<C::Program>, Option<C>),
    Call(C),
    Bundle(Bundle<C>),
    Forget(u64),
    ShutDown,
}

impl<C: QueuedCall> Job<C> {
    /// Converts the job to the one that is sent. `is_loaded` returns whether the worker has loaded
    /// a program.
    pub(in crate::engine) fn into_in_flight(self, is_loaded: impl FnOnce(u64) -> bool) -> InFlight<C> {
        match self {
            Self::Call(call) if is_loaded(call.program_key()) => InFlight::Call(call),
            Self::Call(call) => InFlight::Load(Arc::clone(call.program()), Some(call)),
            Self::Bundle(calls) => InFlight::Bundle(Bundle::new(calls)),
            Self::Load(program) => InFlight::Load(program, None),
            Self::Forget(key) => InFlight::Forget(key),
            Self::ShutDown => InFlight::ShutDown,
        }
    }
}

impl<C: QueuedCall> From<InFlight<C>> for Job<C> {
    fn from(job: InFlight<C>) -> Self {
        match job {
            InFlight::Call(call) | InFlight::Load(_, Some(call)) => Self::Call(call),
            InFlight::Bundle(bundle) => Self::Bundle(bundle.into_calls()),
            InFlight::Load(program, None) => Self::Load(program),
            InFlight::Forget(key) => Self::Forget(key),
            InFlight::ShutDown => Self::ShutDown,
        }
    }
}

impl<C: QueuedCall> InFlight<C> {
    /// Returns the call that this job runs, or loads a program for.
    pub(in crate::engine) fn call(&self) -> Option<&C> {
        match self {
            Self::Call(call) | Self::Load(_, Some(call)) => Some(call),
            Self::Bundle(bundle) => bundle.running(),
            Self::Load(_, None) | Self::Forget(_) | Self::ShutDown => None,
        }
    }
}
