//! Engine for a set of actors that have loaded one pipeline.
//!
//! A call is assigned to the actor with the fewest calls, or waits here if all of them are busy.
//! Ray restarts an actor whose process dies. The restarted actor has to load the pipeline again,
//! and gets no calls until it reports that it has.
//!
//! | file | what |
//! | --- | --- |
//! | `start` | starts actors, and makes them load the pipeline |
//! | `slot` | one actor, and the calls that it has |
//! | `choice` | which calls an actor gets next |
//! | `dispatch` | sends calls to actors, and completes them |
//! | `bundle` | the same for several small calls that are sent as one |
//! | `recovery` | handles dead actors and expired deadlines |

mod bundle;
mod choice;
mod dispatch;
pub(crate) mod recovery;
mod slot;
pub(crate) mod start;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::PyErr;

use self::slot::Slot;
use super::bundling::MethodTimes;
use super::in_flight::InFlightCall;
use super::inline_wait::LastUnread;
use super::open_calls::OpenCalls;
use super::workers::WorkerRegistry;
use super::{Admission, ClusterTarget};
use crate::arena::arena::Arena;
use crate::engine::Engine;
use crate::engine::call::{Call, Submitted};
use crate::engine::deadline::time_to_enter;
use crate::engine::program::{Attached, Program};
use crate::engine::settings::Settings;
use crate::engine::timer::{TimerThread, is_own_thread};
use crate::error::call::{CallError, Worker};
use crate::os::sync::{Condvar, Mutex};
use crate::ray::engine::KIND;
use crate::ray::python::without_python;

/// The actors of one pipeline. Dropping this ends them.
pub(super) struct RayActors(Arc<Shared>);

pub(super) struct Shared {
    pub(super) target: ClusterTarget,
    /// The program that an actor loads when it starts.
    program: Mutex<Arc<Program>>,
    settings: Settings,
    /// Whether the pipeline has methods that return streams. Then it is served on a thread of its own,
    /// and Ray's thread takes the items.
    has_streams: bool,
    timer: TimerThread,
    delivery_thread: Arc<TimerThread>,
    registry: WorkerRegistry,
    last_unread: LastUnread,
    open_calls: OpenCalls,
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Queued calls for any actor.
    waiting: VecDeque<InFlightCall>,
    times: MethodTimes,
    open: usize,
    closed: bool,
    /// Whether queued calls are discarded.
    aborted: bool,
}

fn has_shut_down() -> PyErr {
    pyo3::exceptions::PyRuntimeError::new_err("the actors have been shut down")
}

impl Shared {
    /// The program that an actor loads when it starts.
    fn program(&self) -> Arc<Program> {
        Arc::clone(&self.program.lock())
    }

    fn release(&self) {
        self.state.lock().open -= 1;
        self.change.notify_all();
    }

    /// Waits for a place in the queue, and takes it.
    fn admit(&self, Admission { method, deadline, is_admitted, .. }: Admission, wait: bool) -> Result<(), CallError> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(CallError::ShutDown { method: method.to_owned() });
            }
            if is_admitted || state.open < self.settings.queue {
                state.open += 1;
                return Ok(());
            }
            if !wait {
                return Err(CallError::QueueFull { waiting: state.open, workers: state.slots.len() });
            }
            let left = time_to_enter(method, deadline)?;
            state = self.change.wait(state, left);
        }
    }

    /// Stops accepting calls.
    fn close(&self) {
        self.state.lock().closed = true;
        self.last_unread.hand_over();
        self.change.notify_all();
    }

    /// Runs the queued calls, and ends the actors.
    fn end(&self) {
        self.close();
        without_python(|| {
            let mut state = self.state.lock();
            while state.open > 0 {
                state = self.change.wait(state, None);
            }
        });
        self.kill_all();
        self.state.lock().slots.clear();
    }

    /// Runs the queued calls, but not longer than `timeout`, and ends the actors. Returns the number of
    /// calls that were left.
    fn drain(&self, timeout: Duration) -> usize {
        self.close();
        let until = Instant::now().checked_add(timeout);
        let left = without_python(|| {
            let mut state = self.state.lock();
            while state.open > 0 {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                if left == Some(Duration::ZERO) {
                    break;
                }
                state = self.change.wait(state, left);
            }
            state.open
        });
        if left > 0 {
            self.abort();
            return left;
        }
        self.kill_all();
        self.state.lock().slots.clear();
        0
    }

    /// Ends the actors immediately. Queued calls fail. Running calls get a result when Ray reports
    /// that the actor has died.
    fn abort(&self) {
        self.close();
        let calls: Vec<_> = {
            let mut state = self.state.lock();
            state.aborted = true;
            let mut calls = std::mem::take(&mut state.waiting);
            for slot in &mut state.slots {
                calls.append(&mut slot.waiting);
            }
            calls.into()
        };
        for call in calls {
            call.answer(Err(CallError::ShutDown { method: call.method().to_owned() }));
        }
        self.kill_all();
    }
}

impl RayActors {
    /// Runs the queued calls, and ends the actors. Returns when they have ended, except on a thread
    /// that the calls themselves need: delivering a result wakes a caller, which may drop the last
    /// handle on that thread.
    fn end(&self) {
        if self.0.target.is_forked() {
            return;
        }
        if !is_own_thread() {
            return self.0.end();
        }
        let shared = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("ray-zerocopy end".to_owned());
        if thread.spawn(move || shared.end()).is_err() {
            self.0.abort();
        }
    }

    /// Ends the actors immediately, without running the queued calls.
    fn abort(&self) {
        if !self.0.target.is_forked() {
            self.0.abort();
        }
    }
}

impl Engine for RayActors {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn submit(&self, call: Call, wait: bool) -> Submitted {
        let entry = Admission::of(&call);
        if let Err(error) =
            self.0.target.check_not_forked(&call).and_then(|()| without_python(|| self.0.admit(entry, wait)))
        {
            return Err(Box::new((call, error)));
        }
        let pinned = call.pinned;
        let (entered, shared) = (Arc::clone(&self.0), Arc::downgrade(&self.0));
        let on_deadline = move |expired: &InFlightCall| {
            if let Some(shared) = shared.upgrade() {
                shared.on_deadline(expired);
            }
        };
        let flight = self.0.open_calls.enter(call, &self.0.timer, move || entered.release(), on_deadline);
        if flight.with(Call::is_cancelled) == Some(true) {
            // Cancelled before it could be found here.
            Engine::cancel(self);
        }
        {
            let mut state = self.0.state.lock();
            match pinned.and_then(|index| state.slots.get_mut(index)) {
                Some(slot) => slot.waiting.push_back(flight.clone()),
                None => state.waiting.push_back(flight.clone()),
            }
        }
        self.0.last_unread.hand_over();
        let unread = self.0.dispatch(Some(&flight));
        Ok(unread.map(|unread| self.0.last_unread.receiver(&unread, &self.0.timer)))
    }

    fn cancel(&self) {
        if self.0.target.is_forked() {
            return;
        }
        let shared = Arc::downgrade(&self.0);
        self.0.open_calls.cancel(&self.0.target.cluster, &self.0.timer, move |call| {
            if let Some(shared) = shared.upgrade() {
                shared.kill_actor_of(call);
            }
        });
        // Calls that were completed before they were sent are dropped.
        self.0.dispatch_queued();
    }

    fn forget(&self, key: u64) {
        if self.0.target.is_forked() {
            return;
        }
        self.0.registry.forget(key);
        let shared = Arc::clone(&self.0);
        // Not here: a program may be dropped anywhere, and this asks Ray.
        self.0.timer.spawn(move || shared.forget(key));
    }

    fn workers(&self) -> Vec<Worker> {
        if self.0.target.is_forked() {
            return Vec::new();
        }
        self.0.state.lock().slots.iter().filter_map(|slot| slot.worker).collect()
    }

    fn is_here(&self, worker: Worker) -> bool {
        !self.0.target.is_forked() && self.0.registry.is_here(worker)
    }

    fn size(&self) -> usize {
        self.0.settings.workers.max
    }

    fn is_open(&self) -> bool {
        // A fork gets its error when it submits.
        self.0.target.is_forked() || !self.0.state.lock().closed
    }

    fn capacity(&self) -> usize {
        self.0.settings.queue
    }

    fn batches_at_once(&self) -> Option<usize> {
        Some(self.0.settings.workers.max)
    }

    fn shut_down(&self) {
        self.end();
    }

    fn abort(&self) {
        Self::abort(self);
    }

    fn drain(&self, timeout: Duration) -> usize {
        if self.0.target.is_forked() { 0 } else { self.0.drain(timeout) }
    }

    fn restart(&self) -> Result<(), CallError> {
        Err(super::restart_unsupported())
    }

    fn adopt(&self, arena: Arena) -> crate::error::Result<Arena> {
        self.0.target.cluster.put_arena(&arena)
    }

    fn live_workers(&self) -> Result<Vec<usize>, CallError> {
        if self.0.target.is_forked() {
            return Ok(Vec::new());
        }
        Ok((0..self.0.state.lock().slots.len()).collect())
    }

    fn set_program(&self, program: &Arc<Program>) {
        let before = std::mem::replace(&mut *self.0.program.lock(), Arc::clone(program));
        // Without the lock: this may run user code.
        drop(before);
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        if self.0.target.is_forked() {
            return Vec::new();
        }
        self.0.registry.all_attached(key)
    }
}

impl Drop for RayActors {
    /// Does not wait for calls during a panic, since they may never end.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort();
        } else {
            self.end();
        }
    }
}
