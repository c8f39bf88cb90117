//! Calls as Ray tasks.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::in_flight::{Completion, InFlightCall};
use super::inline_wait::{LastUnread, UnreadReply};
use super::timer::TimerThread;
use super::workers::WorkerRegistry;
use super::{ClusterTarget, Entry, lock, named};
use crate::engine::Engine;
use crate::engine::call::{Call, Submitted};
use crate::engine::program::Attached;
use crate::error::call::{CallError, CallPhase, Worker};
use crate::error::ray::RayError;
use crate::ray::python::without_python;
use crate::ray::store::plasma;
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Order, Request};

/// How many calls may be under way before callers have to wait.
const QUEUE: usize = 1024;

/// Calls of any pipeline, each a task.
pub(super) struct RayTasks(Arc<Shared>);

struct Shared {
    site: ClusterTarget,
    keeper: TimerThread,
    answers: Arc<TimerThread>,
    known: WorkerRegistry,
    last: LastUnread,
    state: Mutex<State>,
    room: Condvar,
    /// Ray's own form of the function, for each method and number of attempts: to make one takes as long as a call.
    functions: Mutex<HashMap<(&'static str, u32), Py<PyAny>>>,
}

#[derive(Default)]
struct State {
    open: usize,
    closed: bool,
    /// The programs that somebody has.
    live: BTreeSet<u64>,
}

impl RayTasks {
    pub(super) fn start(site: ClusterTarget) -> Result<Arc<Self>, RayError> {
        let other = |error: std::io::Error| RayError::Other { what: "a thread".to_owned(), cause: error.to_string() };
        Ok(Arc::new(Self(Arc::new(Shared {
            site,
            keeper: TimerThread::start().map_err(other)?,
            answers: Arc::new(TimerThread::start().map_err(other)?),
            known: WorkerRegistry::default(),
            last: LastUnread::default(),
            state: Mutex::default(),
            room: Condvar::new(),
            functions: Mutex::default(),
        }))))
    }
}

impl Shared {
    /// Waits for room, and takes it.
    fn enter(&self, Entry { method, deadline, key }: Entry, wait: bool) -> Result<(), CallError> {
        let method = || method.to_owned();
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return Err(CallError::ShutDown { method: method() });
            }
            if state.open < QUEUE {
                state.open += 1;
                state.live.insert(key);
                return Ok(());
            }
            if !wait {
                return Err(CallError::QueueFull { waiting: state.open, workers: self.known.workers().len() });
            }
            let left = deadline.map(|(until, after)| (until.saturating_duration_since(Instant::now()), after));
            if let Some((Duration::ZERO, after)) = left {
                let phase = CallPhase::BeforeQueue;
                return Err(CallError::Deadline { method: method(), after, phase });
            }
            let pause = left.map_or(Duration::from_secs(3600), |(left, _)| left);
            state = self.room.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn leave(&self) {
        lock(&self.state).open -= 1;
        self.room.notify_one();
    }

    /// Gives a call to Ray.
    fn send(self: &Arc<Self>, flight: &InFlightCall, with_arena: bool) -> Option<Arc<UnreadReply>> {
        self.try_send(flight, with_arena).unwrap_or_else(|error| {
            flight.fail(error);
            None
        })
    }

    fn try_send(
        self: &Arc<Self>,
        flight: &InFlightCall,
        with_arena: bool,
    ) -> Result<Option<Arc<UnreadReply>>, RayError> {
        let Some((program, handler, allowed)) =
            flight.with(|call| (Arc::clone(&call.program), call.handler.clone(), call.allowed))
        else {
            return Ok(None);
        };
        let cluster = &self.site.cluster;
        let (id, load) = named(cluster, &program);
        let live = lock(&self.state).live.iter().copied().collect();
        let order = Order::Call { program: id, handler, load: with_arena.then_some(load), live };
        let request =
            Request { binary: cluster.0.binary, threads: self.site.options.threads(), own: false, whole: false, order };
        let packed = EncodedMessage::with(&request, flight.cargo().clone())?;
        let no_arena = || RayError::Other {
            what: flight.method().to_owned(),
            cause: "the arena is not in the object store".to_owned(),
        };
        let arena = with_arena.then(|| plasma::reference(&program.arena).ok_or_else(no_arena)).transpose()?;
        let reference = cluster.ask(flight.method(), |py| {
            let function = self.function(py, flight.method(), allowed)?;
            let arena = arena.map(|held| held.reference.bind(py).clone());
            let reference = function.call1(packed.arguments(py, arena)?)?;
            flight.sent(reference.clone().unbind());
            Ok(reference.unbind())
        })?;
        let (shared, landing) = (Arc::clone(self), flight.clone());
        let land = Box::new(move |result| shared.landed(&landing, result));
        Ok(Some(UnreadReply::new(cluster, reference, flight.method(), &self.answers, None, land)))
    }

    fn landed(
        self: &Arc<Self>,
        flight: &InFlightCall,
        result: Result<(crate::ray::wire::protocol::Reply, crate::engine::message::Incoming), RayError>,
    ) {
        if let Completion::Missing = flight.land(result, &self.known, None) {
            let (shared, flight) = (Arc::clone(self), flight.clone());
            self.keeper.soon(move || {
                if let Some(unread) = shared.send(&flight, true) {
                    unread.by_ray();
                }
            });
        }
    }

    fn function<'py>(&self, py: Python<'py>, method: &'static str, allowed: u32) -> PyResult<Bound<'py, PyAny>> {
        if let Some(function) = lock(&self.functions).get(&(method, allowed)) {
            return Ok(function.bind(py).clone());
        }
        let keywords: Bound<'_, PyDict> = self.site.options.keywords(py)?;
        keywords.set_item("max_retries", allowed.saturating_sub(1))?;
        keywords.set_item("name", method)?;
        let call = self.site.cluster.0.glue.bind(py).getattr("call")?;
        let function = py.import("ray")?.getattr("remote")?.call((), Some(&keywords))?.call1((call,))?;
        let function = function.getattr("remote")?;
        lock(&self.functions).insert((method, allowed), function.clone().unbind());
        Ok(function)
    }

    /// Ends a call whose time is over, and what runs it.
    fn cut_off(&self, flight: &InFlightCall) {
        if !flight.late(CallPhase::RayTask) {
            return;
        }
        // Ray kills the worker that is busy with it, or takes the task back. If it cannot, the task has ended.
        drop(self.site.cluster.ask("cancel", |py| {
            let arguments = PyDict::new(py);
            arguments.set_item("force", true)?;
            match flight.reference(py) {
                Some(reference) => py.import("ray")?.call_method("cancel", (reference,), Some(&arguments)).map(drop),
                None => Ok(()),
            }
        }));
    }
}

impl Engine for RayTasks {
    fn submit(&self, call: Call, wait: bool) -> Submitted {
        let entry = Entry::of(&call);
        if let Err(error) = self.0.site.here(&call).and_then(|()| without_python(|| self.0.enter(entry, wait))) {
            return Err(Box::new((call, error)));
        }
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
        self.0.last.adopt();
        let unread = self.0.send(&flight, false);
        Ok(unread.map(|unread| self.0.last.lone(&unread)))
    }

    /// Workers hear of it with the next call that they run, or drop the pipeline after a while.
    fn forget(&self, key: u64) {
        if self.0.site.is_forked() {
            return;
        }
        lock(&self.0.state).live.remove(&key);
        self.0.known.forget(key);
    }

    fn workers(&self) -> Vec<Worker> {
        if self.0.site.is_forked() {
            return Vec::new();
        }
        self.0.known.workers()
    }

    fn is_here(&self, worker: Worker) -> bool {
        !self.0.site.is_forked() && self.0.known.is_here(worker)
    }

    fn size(&self) -> usize {
        self.workers().len()
    }

    fn shut_down(&self) {
        if self.0.site.is_forked() {
            return;
        }
        lock(&self.0.state).closed = true;
        self.0.last.adopt();
        self.0.room.notify_all();
    }

    /// The workers are Ray's, and serve others, too.
    fn abort(&self) {
        self.shut_down();
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        if self.0.site.is_forked() {
            return Vec::new();
        }
        self.0.known.all_attached(key)
    }
}
