//! The work that a pool gives to a worker: one job at a time.
//!
//! A call is opaque here, as it is to the scheduler and to the state of a connection:
//! [`QueuedCall`] is all that they read of one. So their tests need no arena and no process.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::call::Call;
use crate::engine::program::Program;

/// A call, as far as scheduling is concerned.
pub(super) trait QueuedCall {
    /// What a worker loads before it can run the call.
    type Program;

    fn program(&self) -> &Arc<Self::Program>;

    /// The program's key, equal for equal programs.
    fn program_key(&self) -> u64;

    /// The index of the only worker that may run the call.
    fn pinned_to(&self) -> Option<usize>;

    fn deadline(&self) -> Option<Instant>;

    /// The counters that decide whether the call is tried again.
    fn attempts(&mut self) -> Attempts<'_>;

    /// Whether the call may be tried once more.
    fn has_attempts_left(&self) -> bool;

    /// Whether the deadline has passed.
    fn is_expired(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}

/// How often a call was tried.
pub(super) struct Attempts<'a> {
    /// How often it was assigned to a worker, without the attempts that were given back.
    pub(super) made: &'a mut u32,
    /// How often it may be.
    pub(super) allowed: u32,
    /// How often in a row its worker ended before it had received the call.
    pub(super) undelivered: &'a mut u32,
}

impl Attempts<'_> {
    /// Takes back the attempt of an assignment that the worker never received.
    pub(super) fn refund(&mut self) {
        *self.made -= 1;
    }

    /// Counts a process that ended after the call was sent and before it was received. The first
    /// `limit` of them in a row are free, the next one costs the attempt. Returns whether the call
    /// may be tried once more.
    pub(super) fn count_undelivered(&mut self, limit: u32) -> bool {
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
        self.attempts < self.allowed
    }
}

/// A job that is to be sent to a worker.
pub(super) enum Job<C: QueuedCall> {
    /// Run a call. If the worker does not have its program, load that first.
    Call(C),
    /// Load the program that every worker of the pool has.
    Load(Arc<C::Program>),
    /// Free a program.
    Forget(u64),
    ShutDown,
}

/// A job that was sent to a worker, which has not replied yet.
pub(super) enum InFlight<C: QueuedCall> {
    /// Load a program, for a call that is sent next, or for none.
    Load(Arc<C::Program>, Option<C>),
    Call(C),
    Forget(u64),
    ShutDown,
}

impl<C: QueuedCall> Job<C> {
    /// The job as it is sent to a worker that has loaded the programs of which `is_loaded` is true.
    pub(super) fn into_in_flight(self, is_loaded: impl FnOnce(u64) -> bool) -> InFlight<C> {
        match self {
            Self::Call(call) if is_loaded(call.program_key()) => InFlight::Call(call),
            Self::Call(call) => InFlight::Load(Arc::clone(call.program()), Some(call)),
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
            InFlight::Load(program, None) => Self::Load(program),
            InFlight::Forget(key) => Self::Forget(key),
            InFlight::ShutDown => Self::ShutDown,
        }
    }
}

impl<C: QueuedCall> InFlight<C> {
    /// The call that waits for this job.
    pub(super) fn call(&self) -> Option<&C> {
        match self {
            Self::Call(call) | Self::Load(_, Some(call)) => Some(call),
            Self::Load(_, None) | Self::Forget(_) | Self::ShutDown => None,
        }
    }
}
