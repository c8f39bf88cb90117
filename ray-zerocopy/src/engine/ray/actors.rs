//! Calls on a set of actors that have loaded one pipeline.
//!
//! A call goes to the actor that has least to do, and waits here if all have enough. An actor whose process dies is started again by
//! Ray, with the same orders, so it loads the pipeline again; until it says that it has, it gets no calls.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::direct::Direct;
use super::flight::{Flight, Landed};
use super::keeper::Keeper;
use super::known::Known;
use super::lone::{Last, Unread};
use super::{Site, lock, named};
use crate::engine::local::Settings;
use crate::engine::{Attached, Call, CallError, Engine, Program, Start, Submitted, Worker};
use crate::ray::frame::Packed;
use crate::ray::protocol::{Answer, Order, Reply, Request};
use crate::ray::{RayError, object, plasma, start_actor};

/// How many calls an actor is given at a time: one to work on, and one to go on with.
const AHEAD: usize = 2;
/// How often an actor that is being restarted is asked whether it is back.
const PROBE: Duration = Duration::from_millis(200);
/// How often it is tried to begin one for which there is no place.
const SELDOM: Duration = Duration::from_secs(5);

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

impl RayActors {
    /// Starts the actors, and waits until they have loaded the pipeline.
    pub(super) fn start(site: Site, start: Start) -> crate::Result<Arc<Self>> {
        let Start { settings, program } = start;
        let other = |error: std::io::Error| RayError::Other { what: "a thread".to_owned(), cause: error.to_string() };
        let shared = Arc::new(Shared {
            site,
            program,
            settings,
            keeper: Keeper::start().map_err(other)?,
            known: Known::default(),
            last: Last::default(),
            state: Mutex::default(),
            change: Condvar::new(),
        });
        let this = Arc::new(Self(shared));
        for _ in 0..this.0.settings.workers {
            let slot = this.0.begin()?;
            lock(&this.0.state).slots.push(slot);
        }
        let until = Instant::now() + this.0.settings.start_timeout;
        for index in 0..this.0.settings.workers {
            this.0.greet(index, Some(until))?;
        }
        Ok(this)
    }
}

impl Shared {
    fn start_error(&self, reason: String) -> CallError {
        CallError::Start { method: self.program.arena.pipeline().to_owned(), reason }
    }

    fn request(&self, order: Order) -> Request {
        Request {
            binary: self.site.cluster.0.binary,
            threads: self.site.options.threads(),
            own: !self.site.options.is_direct(),
            whole: false,
            order,
        }
    }

    /// Starts an actor, as a process that has loaded nothing.
    fn begin(&self) -> Result<Slot, RayError> {
        let cluster = &self.site.cluster;
        cluster.ask(self.program.arena.pipeline(), |py| {
            let keywords: Bound<'_, PyDict> = self.site.options.keywords(py)?;
            // One that is called directly is begun anew by its owner, who has to open a new channel anyway.
            keywords.set_item("max_restarts", if self.site.options.is_direct() { 0 } else { -1 })?;
            let handle = start_actor(&cluster.0, py, &keywords, None, None)?;
            let call = handle.bind(py).getattr("call")?.getattr("remote")?.unbind();
            Ok(Slot { handle, call, busy: 0, waiting: VecDeque::new(), direct: None, there: None })
        })
    }

    /// Has an actor load the pipeline, and waits until it has. It gets calls from then on.
    fn greet(&self, index: usize, until: Option<Instant>) -> Result<(), CallError> {
        let cluster = &self.site.cluster;
        let what = self.program.arena.pipeline();
        let (program, load) = named(cluster, &self.program);
        let failed = |error| CallError::Ray { method: what.to_owned(), error };
        let packed = Packed::new(&self.request(Order::Load { program, load }), Default::default()).map_err(failed)?;
        let lost =
            || RayError::Other { what: what.to_owned(), cause: "the arena is not in the object store".to_owned() };
        let held = plasma::reference(&self.program.arena).ok_or_else(lost).map_err(failed)?;
        let asked = cluster.ask(what, |py| {
            let arguments = packed.arguments(py, Some(held.reference.bind(py).clone()))?;
            let reference = self.call(py, index)?.bind(py).call1(arguments)?;
            let keywords = PyDict::new(py);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64());
            keywords.set_item("timeout", left)?;
            let result = py.import("ray")?.call_method("get", (reference,), Some(&keywords))?;
            Ok(object::result(&result, what))
        });
        let (reply, _) = match asked.and_then(|reply| reply) {
            Ok(reply) => reply,
            Err(RayError::TimedOut { .. }) => return Err(self.start_error(self.no_room(index))),
            Err(error) => return Err(failed(error)),
        };
        let worker = Worker { index, pid: reply.from.pid };
        match reply {
            Reply { answer: Answer::NotLoaded(error), .. } => Err(CallError::Load { worker, error }),
            Reply { answer: Answer::Done, attached, from } => {
                self.known.worker(&from);
                if let Some(attached) = attached {
                    self.known.attached(self.program.key, worker, attached);
                }
                let direct = self.open_direct(index).map_err(failed)?;
                if let Some(slot) = lock(&self.state).slots.get_mut(index) {
                    slot.there = Some(worker);
                    slot.direct = direct;
                }
                Ok(())
            }
            Reply { answer: Answer::Failed(failure), from, .. } => {
                let (what, worker, message) = (what.to_owned(), from.to_string(), format!("{failure:?}"));
                Err(failed(RayError::Panicked { what, worker, message }))
            }
            Reply { from, .. } => Err(failed(RayError::OtherBinary { worker: from.to_string() })),
        }
    }

    /// Opens the short way to an actor, if that is wanted.
    fn open_direct(&self, index: usize) -> Result<Option<Arc<Direct>>, RayError> {
        if !self.site.options.is_direct() {
            return Ok(None);
        }
        let handle = Python::attach(|py| Some(lock(&self.state).slots.get(index)?.handle.clone_ref(py)));
        handle.map(|handle| Direct::open(&self.site.cluster, &handle)).transpose()
    }

    /// Ray's own form of an actor's one method.
    fn call(&self, py: Python<'_>, index: usize) -> PyResult<Py<PyAny>> {
        let call = lock(&self.state).slots.get(index).map(|slot| slot.call.clone_ref(py));
        call.ok_or_else(|| pyo3::exceptions::PyRuntimeError::new_err("the actors have been shut down"))
    }

    /// What is said of an actor for which Ray finds no place.
    fn no_room(&self, index: usize) -> String {
        let resources = |found: Result<std::collections::BTreeMap<String, f64>, RayError>, name: &str| {
            found.ok().and_then(|found| found.get(name).copied()).unwrap_or(0.0)
        };
        let cluster = &self.site.cluster;
        format!(
            "actor {index} was not there within {:?}: the cluster has {} CPUs, {} of them free, and {} GPUs; each actor asks \
             for what `Options` say, or 1 CPU",
            self.settings.start_timeout,
            resources(cluster.resources(), "CPU"),
            resources(cluster.available(), "CPU"),
            resources(cluster.resources(), "GPU"),
        )
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

    /// An actor's process is gone: it gets no calls until there is another, which is looked after elsewhere.
    fn lost(self: &Arc<Self>, index: usize, forever: bool) {
        let (first, direct) = match lock(&self.state).slots.get_mut(index) {
            Some(slot) => (slot.there.take().is_some(), slot.direct.take()),
            None => (false, None),
        };
        let forever = forever || self.site.options.is_direct();
        if let Some(direct) = direct {
            self.keeper.soon(move || direct.close());
        }
        if first {
            self.probe_at(Instant::now(), index, forever);
        }
    }

    fn probe_at(self: &Arc<Self>, when: Instant, index: usize, forever: bool) {
        let shared = Arc::downgrade(self);
        self.keeper.at(when, move || {
            if let Some(shared) = shared.upgrade() {
                shared.probe(index, forever);
            }
        });
    }

    /// Asks an actor whether it is back, until it is. One that Ray has given up is begun anew.
    fn probe(self: &Arc<Self>, index: usize, forever: bool) {
        if lock(&self.state).closed {
            return;
        }
        if forever
            && let Ok(Slot { handle, call, .. }) = self.begin()
            && let Some(slot) = lock(&self.state).slots.get_mut(index)
        {
            (slot.handle, slot.call) = (handle, call);
        }
        match self.greet(index, Some(Instant::now() + self.settings.start_timeout)) {
            Ok(()) => self.go_on(),
            Err(error) => {
                let (dead, hopeless, pause) = match &error {
                    CallError::Ray { error: RayError::ActorDied { restarting: true, .. }, .. } => (false, false, PROBE),
                    // One that was begun anew is dead as well, and not only the one before it.
                    CallError::Ray { error: RayError::ActorDied { .. }, .. } => (true, forever, PROBE),
                    CallError::Load { .. } | CallError::Start { .. } => (false, true, PROBE),
                    // Ray does not place it: the node that it has to be on is gone. There may be one some day.
                    _ => (true, true, SELDOM),
                };
                if hopeless {
                    self.give_up(index, &error);
                }
                self.probe_at(Instant::now() + pause, index, dead);
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
            if let CallError::Ray { method, .. } | CallError::Start { method, .. } = &mut error {
                call.method().clone_into(method);
            }
            call.answer(Err(error));
        }
    }

    /// Ends a call whose time is over, and the process that is busy with it: Ray starts it again.
    fn cut_off(self: &Arc<Self>, flight: &Flight) {
        if !flight.is_open() {
            return;
        }
        // It gets no more calls before anybody hears of this.
        let place = flight.place();
        let there = place.and_then(|index| lock(&self.state).slots.get_mut(index)?.there.take());
        if !flight.late("in an actor, or waiting for one") {
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
            self.probe_at(Instant::now(), index, self.site.options.is_direct());
        }
    }

    fn kill(&self, py: Python<'_>, index: usize, for_good: bool) -> PyResult<()> {
        let handle = lock(&self.state).slots.get(index).map(|slot| slot.handle.clone_ref(py));
        let Some(handle) = handle else { return Ok(()) };
        let keywords = PyDict::new(py);
        keywords.set_item("no_restart", for_good)?;
        py.import("ray")?.call_method("kill", (handle,), Some(&keywords)).map(drop)
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
