//! Calls on a set of actors that have loaded one pipeline.
//!
//! A call goes to the actor that has least to do, and waits here if all have enough. An actor whose process dies is started again by
//! Ray, with the same orders, so it loads the pipeline again; until it says that it has, it gets no calls.
//!
//! | file | what |
//! | --- | --- |
//! | `begin` | starting actors, and having them load the pipeline |
//! | `heal` | what is done when one dies, or a call passes its deadline |

pub(crate) mod recovery;
pub(crate) mod start;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::compiled_graph::CompiledGraphChannel;
use super::in_flight::{Completion, InFlightCall};
use super::inline_wait::{LastUnread, UnreadReply};
use super::timer::{TimerThread, is_own_thread};
use super::workers::WorkerRegistry;
use super::{ClusterTarget, Entry, lock, named};
use crate::engine::Engine;
use crate::engine::call::{Call, Submitted};
use crate::engine::program::{Attached, Program};
use crate::engine::settings::Settings;
use crate::error::call::{CallError, CallPhase, Worker};
use crate::error::ray::RayError;
use crate::ray::python::without_python;
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Order, Reply, Request};

/// How many calls an actor is given at a time: one to work on, and one to go on with.
const AHEAD: usize = 2;

/// Actors of one pipeline. They end with it.
pub(super) struct RayActors(Arc<Shared>);

pub(super) struct Shared {
    pub(super) site: ClusterTarget,
    program: Arc<Program>,
    settings: Settings,
    keeper: TimerThread,
    answers: Arc<TimerThread>,
    known: WorkerRegistry,
    last: LastUnread,
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Calls for any actor.
    waiting: VecDeque<InFlightCall>,
    open: usize,
    closed: bool,
    /// Whether what waits is not run any more.
    aborted: bool,
}

struct Slot {
    handle: Py<PyAny>,
    call: Py<PyAny>,
    /// Calls that Ray has been given.
    busy: usize,
    /// Calls for this actor, which wait until it is there.
    waiting: VecDeque<InFlightCall>,
    /// The short way to it, if that is wanted.
    direct: Option<Arc<CompiledGraphChannel>>,
    /// Its process, once it has loaded the pipeline.
    there: Option<Worker>,
}

/// How many calls an actor may have if it is to get this one. One that has a deadline gets an actor that does nothing else, since
/// the actor ends with it.
fn ahead(flight: &InFlightCall) -> usize {
    if flight.deadline().is_some() { 1 } else { AHEAD }
}

impl Shared {
    fn request(&self, order: Order) -> Request {
        Request {
            binary: self.site.cluster.0.binary,
            threads: self.site.options.threads(),
            own: !self.site.options.has_compiled_graph(),
            whole: false,
            order,
        }
    }

    /// Ray's own form of an actor's one method.
    fn call(&self, py: Python<'_>, index: usize) -> PyResult<Py<PyAny>> {
        let call = lock(&self.state).slots.get(index).map(|slot| slot.call.clone_ref(py));
        call.ok_or_else(|| pyo3::exceptions::PyRuntimeError::new_err("the actors have been shut down"))
    }

    /// Gives waiting calls to actors that have room.
    ///
    /// Gives the answer to one of them that nobody reads yet: that of `whose`.
    fn dispatch(self: &Arc<Self>, whose: Option<&InFlightCall>) -> Option<Arc<UnreadReply>> {
        let mut own = None;
        loop {
            let mut state = lock(&self.state);
            // Calls for one actor go to Ray at once, which keeps their order.
            let pinned = state.slots.iter_mut().enumerate().find_map(|(index, slot)| {
                slot.there?;
                let most = if slot.direct.is_some() { AHEAD } else { usize::MAX };
                let room = slot.busy == 0 || (slot.busy < most && slot.waiting.front()?.deadline().is_none());
                let flight = if room { slot.waiting.pop_front() } else { None };
                Some((index, flight?))
            });
            let next = pinned.or_else(|| {
                let ahead = ahead(state.waiting.front()?);
                let free = state.slots.iter().enumerate().filter(|(_, slot)| slot.there.is_some() && slot.busy < ahead);
                let index = free.min_by_key(|(_, slot)| slot.busy)?.0;
                Some((index, state.waiting.pop_front()?))
            });
            let Some((index, flight)) = next else { return own };
            if !flight.is_open() {
                continue;
            }
            flight.placed(index);
            state.slots[index].busy += 1;
            drop(state);
            match self.send(index, &flight) {
                Some(unread) if whose.is_some_and(|whose| whose.is(&flight)) => own = Some(unread),
                Some(unread) => unread.by_ray(),
                None => {}
            }
        }
    }

    /// As [`dispatch`](Self::dispatch), where no caller is there to read.
    fn go_on(self: &Arc<Self>) {
        drop(self.dispatch(None));
    }

    fn send(self: &Arc<Self>, index: usize, flight: &InFlightCall) -> Option<Arc<UnreadReply>> {
        self.try_send(index, flight).unwrap_or_else(|error| {
            self.idle(index);
            flight.fail(error);
            None
        })
    }

    fn idle(&self, index: usize) {
        if let Some(slot) = lock(&self.state).slots.get_mut(index) {
            slot.busy -= 1;
        }
    }

    fn try_send(self: &Arc<Self>, index: usize, flight: &InFlightCall) -> Result<Option<Arc<UnreadReply>>, RayError> {
        let cluster = &self.site.cluster;
        let (program, _) = named(cluster, &self.program);
        let Some(handler) = flight.with(|call| call.handler.clone()) else {
            self.idle(index);
            return Ok(None);
        };
        let order = Order::Call { program, handler, load: None, live: Vec::new() };
        let direct = lock(&self.state).slots.get(index).and_then(|slot| slot.direct.clone());
        let direct = direct.filter(|_| flight.cargo().is_small());
        let request = Request { whole: direct.is_some(), ..self.request(order) };
        let packed = EncodedMessage::with(&request, flight.cargo().clone())?;
        let reference = match &direct {
            Some(direct) => direct.send(packed, flight.method())?,
            None => cluster.ask(flight.method(), |py| {
                let call = self.call(py, index)?;
                Ok(call.bind(py).call1(packed.arguments(py, None)?)?.unbind())
            })?,
        };
        let (shared, landing) = (Arc::clone(self), flight.clone());
        let land = Box::new(move |result| shared.landed(index, &landing, result));
        Ok(Some(UnreadReply::new(cluster, reference, flight.method(), &self.answers, direct, land)))
    }

    fn landed(
        self: &Arc<Self>,
        index: usize,
        flight: &InFlightCall,
        result: Result<(Reply, crate::engine::message::Incoming), RayError>,
    ) {
        let there = lock(&self.state).slots.get_mut(index).and_then(|slot| {
            slot.busy -= 1;
            slot.there
        });
        let forever = match &result {
            Err(RayError::ActorDied { is_restarting, .. }) => Some(!is_restarting),
            Err(RayError::WorkerDied { .. }) => Some(false),
            _ => None,
        };
        let worker = there.or(Some(Worker { index, pid: 0 }));
        match (flight.land(result, &self.known, worker), forever) {
            // Ray has started it again without a word: the call has not run.
            (Completion::Missing, _) => {
                if let Some(slot) = lock(&self.state).slots.get_mut(index) {
                    slot.waiting.push_front(flight.clone());
                }
                self.lost(index, false);
            }
            (_, Some(forever)) => self.lost(index, forever),
            (Completion::Answered | Completion::Gone, None) => {}
        }
        self.go_on();
    }

    fn leave(&self) {
        lock(&self.state).open -= 1;
        self.change.notify_all();
    }

    /// Waits for room, and takes it.
    fn enter(&self, Entry { method, deadline, .. }: Entry, wait: bool) -> Result<(), CallError> {
        let method = || method.to_owned();
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return Err(CallError::ShutDown { method: method() });
            }
            if state.open < self.settings.queue {
                state.open += 1;
                return Ok(());
            }
            if !wait {
                return Err(CallError::QueueFull { waiting: state.open, workers: state.slots.len() });
            }
            let left = deadline.map(|(until, after)| (until.saturating_duration_since(Instant::now()), after));
            if let Some((Duration::ZERO, after)) = left {
                let phase = CallPhase::BeforeQueue;
                return Err(CallError::Deadline { method: method(), after, phase });
            }
            let pause = left.map_or(Duration::from_secs(3600), |(left, _)| left);
            state = self.change.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes no new calls.
    fn close(&self) {
        lock(&self.state).closed = true;
        self.last.adopt();
        self.change.notify_all();
    }

    /// Runs what waits, and ends the actors.
    fn end(&self) {
        self.close();
        without_python(|| {
            let mut state = lock(&self.state);
            while state.open > 0 {
                state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        });
        self.kill_all();
        lock(&self.state).slots.clear();
    }

    /// Ends the actors at once: calls that wait are not run, and those that actors are busy with are answered when Ray says
    /// that the actor is gone.
    fn abort(&self) {
        self.close();
        let calls: Vec<_> = {
            let mut state = lock(&self.state);
            state.aborted = true;
            let mut calls = std::mem::take(&mut state.waiting);
            state.slots.iter_mut().for_each(|slot| calls.append(&mut slot.waiting));
            calls.into()
        };
        for call in calls {
            call.answer(Err(CallError::ShutDown { method: call.method().to_owned() }));
        }
        self.kill_all();
    }

    fn kill_all(&self) {
        let (actors, direct) = {
            let mut state = lock(&self.state);
            let direct: Vec<_> = state.slots.iter_mut().filter_map(|slot| slot.direct.take()).collect();
            (state.slots.len(), direct)
        };
        direct.iter().for_each(|direct| direct.close());
        for index in 0..actors {
            // Ray ends them with the last handle anyway.
            drop(self.site.cluster.ask("kill", |py| self.kill(py, index, true)));
        }
    }
}

impl RayActors {
    /// Runs what waits, and ends the actors. Returns when they are gone, except on a thread that the calls need: an answer wakes
    /// a caller there, who may drop the last handle.
    fn end(&self) {
        if self.0.site.is_forked() {
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

    /// Ends the actors at once, without running the calls that wait.
    fn abort(&self) {
        if !self.0.site.is_forked() {
            self.0.abort();
        }
    }
}

impl Engine for RayActors {
    fn submit(&self, call: Call, wait: bool) -> Submitted {
        let entry = Entry::of(&call);
        if let Err(error) = self.0.site.here(&call).and_then(|()| without_python(|| self.0.enter(entry, wait))) {
            return Err(Box::new((call, error)));
        }
        let pinned = call.pinned;
        let entered = Arc::clone(&self.0);
        let flight = InFlightCall::new(call, move || entered.leave());
        if let Some((until, _)) = flight.deadline() {
            let (shared, late) = (Arc::downgrade(&self.0), flight.clone());
            self.0.keeper.at(until, move || {
                if let Some(shared) = shared.upgrade() {
                    shared.cut_off(&late);
                }
            });
        }
        {
            let mut state = lock(&self.0.state);
            match pinned.and_then(|index| state.slots.get_mut(index)) {
                Some(slot) => slot.waiting.push_back(flight.clone()),
                None => state.waiting.push_back(flight.clone()),
            }
        }
        self.0.last.adopt();
        let unread = self.0.dispatch(Some(&flight));
        Ok(unread.map(|unread| self.0.last.lone(&unread)))
    }

    fn forget(&self, key: u64) {
        if self.0.site.is_forked() {
            return;
        }
        self.0.known.forget(key);
    }

    fn workers(&self) -> Vec<Worker> {
        if self.0.site.is_forked() {
            return Vec::new();
        }
        lock(&self.0.state).slots.iter().filter_map(|slot| slot.there).collect()
    }

    fn is_here(&self, worker: Worker) -> bool {
        !self.0.site.is_forked() && self.0.known.is_here(worker)
    }

    fn size(&self) -> usize {
        self.0.settings.workers
    }

    fn shut_down(&self) {
        self.end();
    }

    fn abort(&self) {
        Self::abort(self);
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        if self.0.site.is_forked() {
            return Vec::new();
        }
        self.0.known.all_attached(key)
    }
}

impl Drop for RayActors {
    /// A panic does not wait for calls that may never end.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort();
        } else {
            self.end();
        }
    }
}
