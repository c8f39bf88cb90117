//! Calls on a set of actors that have loaded one pipeline.
//!
//! A call goes to the actor that has least to do, and waits here if all have enough. An actor whose process dies is started again by
//! Ray, with the same orders, so it loads the pipeline again; until it says that it has, it gets no calls.
//!
//! | file | what |
//! | --- | --- |
//! | `begin` | starting actors, and having them load the pipeline |
//! | `heal` | what is done when one dies, or a call passes its deadline |

mod begin;
mod heal;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::direct::Direct;
use super::flight::{Flight, Landed};
use super::keeper::Keeper;
use super::known::Known;
use super::lone::{Last, Unread};
use super::{Site, lock, named};
use crate::engine::local::Settings;
use crate::engine::{Attached, Call, CallError, Engine, Program, Submitted, Worker};
use crate::ray::RayError;
use crate::ray::frame::Packed;
use crate::ray::protocol::{Order, Reply, Request};

/// How many calls an actor is given at a time: one to work on, and one to go on with.
const AHEAD: usize = 2;

/// Actors of one pipeline. They end with it.
pub(super) struct RayActors(Arc<Shared>);

pub(super) struct Shared {
    pub(super) site: Site,
    program: Arc<Program>,
    settings: Settings,
    keeper: Keeper,
    known: Known,
    last: Last,
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Calls for any actor.
    waiting: VecDeque<Flight>,
    open: usize,
    closed: bool,
}

struct Slot {
    handle: Py<PyAny>,
    call: Py<PyAny>,
    /// Calls that Ray has been given.
    busy: usize,
    /// Calls for this actor, which wait until it is there.
    waiting: VecDeque<Flight>,
    /// The short way to it, if that is wanted.
    direct: Option<Arc<Direct>>,
    /// Its process, once it has loaded the pipeline.
    there: Option<Worker>,
}

/// How many calls an actor may have if it is to get this one. One that has a deadline gets an actor that does nothing else, since
/// the actor ends with it.
fn ahead(flight: &Flight) -> usize {
    if flight.deadline().is_some() { 1 } else { AHEAD }
}

impl Shared {
    fn request(&self, order: Order) -> Request {
        Request {
            binary: self.site.cluster.0.binary,
            threads: self.site.options.threads(),
            own: !self.site.options.is_direct(),
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
    fn dispatch(self: &Arc<Self>, whose: Option<&Flight>) -> Option<Arc<Unread>> {
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

    fn send(self: &Arc<Self>, index: usize, flight: &Flight) -> Option<Arc<Unread>> {
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

    fn try_send(self: &Arc<Self>, index: usize, flight: &Flight) -> Result<Option<Arc<Unread>>, RayError> {
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
        let packed = Packed::with(&request, flight.cargo().clone())?;
        let reference = match &direct {
            Some(direct) => direct.send(packed, flight.method())?,
            None => cluster.ask(flight.method(), |py| {
                let call = self.call(py, index)?;
                Ok(call.bind(py).call1(packed.arguments(py, None)?)?.unbind())
            })?,
        };
        let (shared, landing) = (Arc::clone(self), flight.clone());
        let land = Box::new(move |result| shared.landed(index, &landing, result));
        Ok(Some(Unread::new(cluster, reference, flight.method(), direct, land)))
    }

    fn landed(
        self: &Arc<Self>,
        index: usize,
        flight: &Flight,
        result: Result<(Reply, crate::engine::message::Incoming), RayError>,
    ) {
        let there = {
            let mut state = lock(&self.state);
            let Some(slot) = state.slots.get_mut(index) else { return };
            slot.busy -= 1;
            slot.there
        };
        let forever = match &result {
            Err(RayError::ActorDied { restarting, .. }) => Some(!restarting),
            Err(RayError::WorkerDied { .. }) => Some(false),
            _ => None,
        };
        let worker = there.or(Some(Worker { index, pid: 0 }));
        match (flight.land(result, &self.known, worker), forever) {
            // Ray has started it again without a word: the call has not run.
            (Landed::Missing, _) => {
                if let Some(slot) = lock(&self.state).slots.get_mut(index) {
                    slot.waiting.push_front(flight.clone());
                }
                self.lost(index, false);
            }
            (_, Some(forever)) => self.lost(index, forever),
            (Landed::Answered | Landed::Gone, None) => {}
        }
        self.go_on();
    }

    fn leave(&self) {
        lock(&self.state).open -= 1;
        self.change.notify_all();
    }

    /// Waits for room, and takes it.
    fn enter(&self, call: &Call, wait: bool) -> Result<(), CallError> {
        let method = || call.method.to_owned();
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
            let left = call.deadline.map(|(until, after)| (until.saturating_duration_since(Instant::now()), after));
            if let Some((Duration::ZERO, after)) = left {
                let place = "before it had a place in the queue".to_owned();
                return Err(CallError::Deadline { method: method(), after, place });
            }
            let pause = left.map_or(Duration::from_secs(3600), |(left, _)| left);
            state = self.change.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Runs what waits, and ends the actors.
    fn end(&self) {
        lock(&self.state).closed = true;
        self.last.adopt();
        self.change.notify_all();
        let mut state = lock(&self.state);
        while state.open > 0 {
            state = self.change.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let actors = state.slots.len();
        let direct: Vec<_> = state.slots.iter_mut().filter_map(|slot| slot.direct.take()).collect();
        drop(state);
        direct.iter().for_each(|direct| direct.close());
        for index in 0..actors {
            // Ray ends them with the last handle anyway.
            drop(self.site.cluster.ask("kill", |py| self.kill(py, index, true)));
        }
        lock(&self.state).slots.clear();
    }
}

impl Engine for RayActors {
    fn submit(&self, call: Call, wait: bool) -> Submitted {
        if let Err(error) = self.0.enter(&call, wait) {
            return Err(Box::new((call, error)));
        }
        let pinned = call.pinned;
        let entered = Arc::clone(&self.0);
        let flight = Flight::new(call, move || entered.leave());
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
        self.0.known.forget(key);
    }

    fn workers(&self) -> Vec<Worker> {
        lock(&self.0.state).slots.iter().filter_map(|slot| slot.there).collect()
    }

    fn is_here(&self, worker: Worker) -> bool {
        self.0.known.is_here(worker)
    }

    fn size(&self) -> usize {
        self.0.settings.workers
    }

    fn shut_down(&self) {
        self.0.end();
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        self.0.known.all_attached(key)
    }
}

impl Drop for RayActors {
    fn drop(&mut self) {
        self.0.end();
    }
}
