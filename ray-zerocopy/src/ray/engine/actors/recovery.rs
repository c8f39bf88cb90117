//! Recovery of dead actors, and handling of expired deadlines.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Shared, Slot};
use crate::engine::figures::workers;
use crate::error::call::{CallError, CallPhase};
use crate::error::ray::RayError;
use crate::ray::engine::KIND;
use crate::ray::engine::in_flight::InFlightCall;

/// Interval of probes of an actor that Ray is restarting.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// Time within which a process that Ray was asked to kill is expected to die. Ray kills it some
/// time after the request, and later still on a busy machine.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval of attempts to start an actor that Ray cannot place.
const UNPLACED_INTERVAL: Duration = Duration::from_secs(5);

impl Shared {
    /// Handles the death of an actor's process: the actor gets no calls until a new process is
    /// ready. Recovery runs on another thread.
    pub(super) fn on_actor_lost(self: &Arc<Self>, index: usize, is_permanent: bool) {
        let (first, direct) = match self.state.lock().slots.get_mut(index) {
            Some(slot) => (slot.process_lost(), slot.direct.take()),
            None => (false, None),
        };
        let is_permanent = is_permanent || self.target.options.has_compiled_graph();
        if let Some(direct) = direct {
            self.timer.spawn(move || direct.close());
        }
        if first {
            workers::ended(KIND, false);
            self.recover(index, is_permanent);
        }
    }

    /// Probes an actor until it has recovered.
    ///
    /// Runs on a separate thread: an actor may take as long as `start_timeout` to start, which must
    /// not delay deadlines of calls to other actors, or their recovery.
    fn recover(self: &Arc<Self>, index: usize, is_permanent: bool) {
        let shared = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name(format!("ray-zerocopy heal {index}"));
        let spawned = thread.spawn(move || {
            let mut next = Some((is_permanent, Duration::ZERO));
            while let Some((is_permanent, pause)) = next {
                std::thread::sleep(pause);
                let Some(shared) = shared.upgrade() else { return };
                next = shared.try_recover(index, is_permanent);
            }
        });
        if spawned.is_err() {
            // No thread can be started now: retry later.
            let shared = Arc::downgrade(self);
            self.timer.run_at(Instant::now() + UNPLACED_INTERVAL, move || {
                if let Some(shared) = shared.upgrade() {
                    shared.recover(index, is_permanent);
                }
            });
        }
    }

    /// Tries once to make an actor load the pipeline. Starts a new actor if Ray has given up on the
    /// old one. If the actor is not ready, returns whether it is dead for good, and the delay
    /// before the next attempt.
    fn try_recover(self: &Arc<Self>, index: usize, is_permanent: bool) -> Option<(bool, Duration)> {
        {
            let state = self.state.lock();
            // Queued calls are run before the engine ends.
            if state.aborted || (state.closed && state.open == 0) {
                return None;
            }
        }
        if is_permanent
            && let Ok(Slot { handle, call, .. }) = self.start_actor()
            && let Some(slot) = self.state.lock().slots.get_mut(index)
        {
            (slot.handle, slot.call) = (handle, call);
        }
        match self.load_program(index, Some(Instant::now() + self.settings.start_timeout)) {
            Ok(()) => {
                self.dispatch_queued();
                None
            }
            Err(error) => {
                let (dead, unstartable, pause) = match &error {
                    CallError::Ray { error: RayError::ActorDied { is_restarting: true, .. }, .. } => {
                        (false, false, PROBE_INTERVAL)
                    }
                    // The newly started actor is dead as well, and not only its predecessor.
                    CallError::Ray { error: RayError::ActorDied { .. }, .. } => (true, is_permanent, PROBE_INTERVAL),
                    CallError::Load { .. } | CallError::Start(_) => (false, true, PROBE_INTERVAL),
                    // Ray cannot place the actor, because its node is gone. Another node may appear
                    // later.
                    _ => (true, true, UNPLACED_INTERVAL),
                };
                if unstartable {
                    self.fail_queued(index, &error);
                }
                Some((dead, pause))
            }
        }
    }

    /// Fails the queued calls of an actor that cannot load the pipeline any more, or cannot be
    /// placed.
    fn fail_queued(&self, index: usize, error: &CallError) {
        let mut state = self.state.lock();
        let mut calls = state.slots.get_mut(index).map(|slot| std::mem::take(&mut slot.waiting)).unwrap_or_default();
        if state.slots.iter().all(|slot| slot.worker.is_none()) {
            calls.append(&mut state.waiting);
        }
        drop(state);
        for call in calls {
            let mut error = error.clone();
            if let CallError::Ray { method, .. } = &mut error {
                call.method().clone_into(method);
            }
            call.answer(Err(error));
        }
    }

    /// Fails a call whose deadline has passed, and kills the actor that runs it. Ray restarts the
    /// actor.
    pub(super) fn on_deadline(self: &Arc<Self>, flight: &InFlightCall) {
        if !flight.is_open() {
            return;
        }
        self.kill_unless(flight, || !flight.expire(CallPhase::RayActor));
    }

    /// Kills the actor that runs a call which was cancelled, and goes on after its grace period.
    pub(super) fn kill_actor_of(self: &Arc<Self>, flight: &InFlightCall) {
        self.kill_unless(flight, || flight.has_result());
    }

    /// Kills the actor that runs a call, unless the call turns out to have ended.
    fn kill_unless(self: &Arc<Self>, flight: &InFlightCall, has_ended: impl FnOnce() -> bool) {
        // From here on the actor gets no more calls.
        let assigned = flight.assigned();
        let worker = assigned.and_then(|index| self.state.lock().slots.get_mut(index)?.worker.take());
        if has_ended() {
            if let (Some(index), Some(worker)) = (assigned, worker)
                && let Some(slot) = self.state.lock().slots.get_mut(index)
            {
                slot.worker = Some(worker);
            }
            return self.dispatch_queued();
        }
        let Some(index) = assigned else { return };
        if let (Some(worker), Some(slot)) = (worker, self.state.lock().slots.get_mut(index)) {
            slot.killed = Some((worker.pid, Instant::now() + KILL_TIMEOUT));
            slot.lost = Some(worker);
        }
        // An error means that the actor is dead already.
        let _ = self.target.cluster.ask("kill", |py| self.kill(py, index, false));
        if worker.is_some() {
            workers::ended(KIND, false);
            self.recover(index, self.target.options.has_compiled_graph());
        }
    }

    /// Kills all actors for good, and closes their compiled graphs.
    pub(super) fn kill_all(&self) {
        let (actors, direct) = {
            let mut state = self.state.lock();
            let direct: Vec<_> = state.slots.iter_mut().filter_map(|slot| slot.direct.take()).collect();
            (state.slots.len(), direct)
        };
        for direct in &direct {
            direct.close();
        }
        for index in 0..actors {
            // An error is ignored: Ray ends the actor when the last handle is dropped.
            let _ = self.target.cluster.ask("kill", |py| self.kill(py, index, true));
        }
    }

    pub(super) fn kill(&self, py: Python<'_>, index: usize, no_restart: bool) -> PyResult<()> {
        let handle = self.state.lock().slots.get(index).map(|slot| slot.handle.clone_ref(py));
        let Some(handle) = handle else { return Ok(()) };
        let keywords = PyDict::new(py);
        keywords.set_item("no_restart", no_restart)?;
        py.import("ray")?.call_method("kill", (handle,), Some(&keywords)).map(drop)
    }
}
