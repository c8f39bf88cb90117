//! One actor, as the engine sees it: its handles in Ray, and the calls that it has.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;

use crate::error::call::Worker;
use crate::ray::engine::compiled_graph::CompiledGraphChannel;
use crate::ray::engine::in_flight::InFlightCall;

/// Maximum number of calls that an actor is given at a time: one to run, and one to continue with.
pub(super) const MAX_CALLS: usize = 2;

/// One actor.
pub(super) struct Slot {
    pub(super) handle: Py<PyAny>,
    pub(super) call: Py<PyAny>,
    /// Number of calls that have been submitted to Ray.
    pub(super) busy: usize,
    /// Number of those that return a stream. Such a call may last as long as its reader wants.
    pub(super) streams: usize,
    /// Number of those that must not have company. No other call is sent to the actor meanwhile.
    pub(super) exclusive: usize,
    /// Queued calls for this actor, in the order in which they were made.
    pub(super) waiting: VecDeque<InFlightCall>,
    /// Whether a thread is submitting a call of `waiting` to Ray. Until it has, no other thread may
    /// submit the next one, which would overtake it.
    pub(super) is_submitting: bool,
    /// Its compiled graph, if the option is enabled.
    pub(super) direct: Option<Arc<CompiledGraphChannel>>,
    /// Its process, once it has loaded the pipeline.
    pub(super) worker: Option<Worker>,
    /// Its last process that has died, for the errors of the calls that it had.
    pub(super) lost: Option<Worker>,
    /// The keys of the programs that this process has loaded: the current one, and others during a swap.
    pub(super) loaded: HashSet<u64>,
    /// The process that was killed because of a deadline, and until when it is expected to die. It
    /// may still answer until then, and a call that it gets would be lost with it.
    pub(super) killed: Option<(u32, Instant)>,
}

impl Slot {
    /// Returns `true` if the actor may get a call for any actor: a call behind a stream could wait for
    /// long, although another actor becomes free.
    pub(super) fn is_available(&self) -> bool {
        self.worker.is_some() && self.streams == 0 && self.exclusive == 0
    }

    /// Records that its process is gone. Returns `true` if it had one.
    pub(super) fn process_lost(&mut self) -> bool {
        self.loaded.clear();
        let lost = self.worker.take();
        self.lost = lost.or(self.lost);
        lost.is_some()
    }

    pub(super) fn call_assigned(&mut self, flight: &InFlightCall) {
        self.busy += 1;
        self.streams += usize::from(flight.items().is_some());
        self.exclusive += usize::from(flight.needs_idle_actor());
    }

    pub(super) fn call_ended(&mut self, flight: &InFlightCall) {
        self.busy -= 1;
        self.streams -= usize::from(flight.items().is_some());
        self.exclusive -= usize::from(flight.needs_idle_actor());
    }
}

/// Maximum number of calls that an actor may have after it gets this one. A call with a deadline
/// needs an otherwise idle actor, since the actor is killed when the deadline passes. So does one with
/// a grace period, and one that moves the state of the actor.
pub(super) fn max_calls(flight: &InFlightCall) -> usize {
    if flight.needs_idle_actor() { 1 } else { MAX_CALLS }
}
