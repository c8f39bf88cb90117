//! What is done when an actor dies, or a call passes its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{Shared, Slot};
use crate::error::call::{CallError, CallPhase};
use crate::error::ray::RayError;
use crate::ray::engine::in_flight::InFlightCall;
use crate::ray::engine::lock;

/// How often an actor that is being restarted is asked whether it is back.
const PROBE: Duration = Duration::from_millis(200);
/// How often it is tried to begin one for which there is no place.
const SELDOM: Duration = Duration::from_secs(5);

impl Shared {
    /// An actor's process is gone: it gets no calls until there is another, which is looked after elsewhere.
    pub(super) fn lost(self: &Arc<Self>, index: usize, forever: bool) {
        let (first, direct) = match lock(&self.state).slots.get_mut(index) {
            Some(slot) => (slot.there.take().is_some(), slot.direct.take()),
            None => (false, None),
        };
        let forever = forever || self.site.options.has_compiled_graph();
        if let Some(direct) = direct {
            self.keeper.soon(move || direct.close());
        }
        if first {
            self.heal(index, forever);
        }
    }

    /// Asks an actor whether it is back, until it is.
    ///
    /// On a thread of its own: an actor may take as long as `start_timeout` to come up, and deadlines of calls to others, and
    /// others that are to be healed, do not wait for it.
    fn heal(self: &Arc<Self>, index: usize, forever: bool) {
        let shared = Arc::downgrade(self);
        let healer = std::thread::Builder::new().name(format!("ray-zerocopy heal {index}"));
        let spawned = healer.spawn(move || {
            let mut next = Some((forever, Duration::ZERO));
            while let Some((forever, pause)) = next {
                std::thread::sleep(pause);
                let Some(shared) = shared.upgrade() else { return };
                next = shared.probe(index, forever);
            }
        });
        if spawned.is_err() {
            // There is no room for a thread now: later, then.
            let shared = Arc::downgrade(self);
            self.keeper.at(Instant::now() + SELDOM, move || {
                if let Some(shared) = shared.upgrade() {
                    shared.heal(index, forever);
                }
            });
        }
    }

    /// Asks an actor whether it is back. One that Ray has given up is begun anew. If it is not back, says how and when to ask again.
    fn probe(self: &Arc<Self>, index: usize, forever: bool) -> Option<(bool, Duration)> {
        {
            let state = lock(&self.state);
            // What waits is run before the engine ends.
            if state.aborted || (state.closed && state.open == 0) {
                return None;
            }
        }
        if forever
            && let Ok(Slot { handle, call, .. }) = self.begin()
            && let Some(slot) = lock(&self.state).slots.get_mut(index)
        {
            (slot.handle, slot.call) = (handle, call);
        }
        match self.greet(index, Some(Instant::now() + self.settings.start_timeout)) {
            Ok(()) => {
                self.go_on();
                None
            }
            Err(error) => {
                let (dead, hopeless, pause) = match &error {
                    CallError::Ray { error: RayError::ActorDied { is_restarting: true, .. }, .. } => {
                        (false, false, PROBE)
                    }
                    // One that was begun anew is dead as well, and not only the one before it.
                    CallError::Ray { error: RayError::ActorDied { .. }, .. } => (true, forever, PROBE),
                    CallError::Load { .. } | CallError::Start(_) => (false, true, PROBE),
                    // Ray does not place it: the node that it has to be on is gone. There may be one some day.
                    _ => (true, true, SELDOM),
                };
                if hopeless {
                    self.give_up(index, &error);
                }
                Some((dead, pause))
            }
        }
    }

    /// The actor cannot load the pipeline any more, or has no place: calls do not wait for it.
    fn give_up(&self, index: usize, error: &CallError) {
        let mut state = lock(&self.state);
        let mut calls = state.slots.get_mut(index).map(|slot| std::mem::take(&mut slot.waiting)).unwrap_or_default();
        if state.slots.iter().all(|slot| slot.there.is_none()) {
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

    /// Ends a call whose time is over, and the process that is busy with it: Ray starts it again.
    pub(super) fn cut_off(self: &Arc<Self>, flight: &InFlightCall) {
        if !flight.is_open() {
            return;
        }
        // It gets no more calls before anybody hears of this.
        let place = flight.place();
        let there = place.and_then(|index| lock(&self.state).slots.get_mut(index)?.there.take());
        if !flight.late(CallPhase::RayActor) {
            // It has ended after all.
            if let (Some(index), Some(worker)) = (place, there)
                && let Some(slot) = lock(&self.state).slots.get_mut(index)
            {
                slot.there = Some(worker);
            }
            return self.go_on();
        }
        let Some(index) = place else { return };
        drop(self.site.cluster.ask("kill", |py| self.kill(py, index, false)));
        if there.is_some() {
            self.heal(index, self.site.options.has_compiled_graph());
        }
    }

    pub(super) fn kill(&self, py: Python<'_>, index: usize, for_good: bool) -> PyResult<()> {
        let handle = lock(&self.state).slots.get(index).map(|slot| slot.handle.clone_ref(py));
        let Some(handle) = handle else { return Ok(()) };
        let keywords = PyDict::new(py);
        keywords.set_item("no_restart", for_good)?;
        py.import("ray")?.call_method("kill", (handle,), Some(&keywords)).map(drop)
    }
}
