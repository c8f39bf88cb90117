//! Engine that runs calls as Ray tasks.
//!
//! | file | what |
//! | --- | --- |
//! | `bundle` | several small calls as one task |

mod bundle;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::bundling::MethodTimes;
use super::in_flight::{Completion, InFlightCall, RayResult};
use super::inline_wait::{LastUnread, UnreadReply};
use super::open_calls::OpenCalls;
use super::streams;
use super::workers::WorkerRegistry;
use super::{Admission, ClusterTarget, in_python, load_of, program_id};
use crate::arena::arena::Arena;
use crate::engine::Engine;
use crate::engine::call::items::Items;
use crate::engine::call::{Call, Submitted};
use crate::engine::deadline::time_to_enter;
use crate::engine::program::{Attached, Program};
use crate::engine::timer::TimerThread;
use crate::engine::trace::setup;
use crate::error::call::{CallError, CallPhase, Worker};
use crate::error::ray::RayError;
use crate::os::sync::{Condvar, Mutex};
use crate::ray::api::object::Held;
use crate::ray::engine::KIND;
use crate::ray::python::without_python;
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Order, Reply, Request, Target};

/// Maximum number of calls in flight before callers have to wait.
const QUEUE: usize = 1024;

/// Runs calls of any pipeline as tasks.
pub(super) struct RayTasks(Arc<Shared>);

/// A method, its number of attempts, and its buffer if it returns a stream.
type FunctionKey = (&'static str, u32, Option<u64>);

struct Shared {
    target: ClusterTarget,
    timer: TimerThread,
    delivery_thread: Arc<TimerThread>,
    /// Thread that submits the calls in `State::waiting`.
    submitter: TimerThread,
    registry: WorkerRegistry,
    last_unread: LastUnread,
    open_calls: OpenCalls,
    state: Mutex<State>,
    room: Condvar,
    /// The remote functions. Creating one takes as long as a
    /// call.
    functions: Mutex<HashMap<FunctionKey, Py<PyAny>>>,
    /// Number of tasks that the cluster runs at the same time.
    concurrency: OnceLock<usize>,
}

#[derive(Default)]
struct State {
    open: usize,
    closed: bool,
    /// Keys of the programs that are still in use.
    live: BTreeSet<u64>,
    times: MethodTimes,
    /// Calls that the submitter takes, and submits together.
    waiting: VecDeque<InFlightCall>,
    /// Whether the submitter looks at them.
    is_submitting: bool,
}

impl RayTasks {
    pub(super) fn start(target: ClusterTarget) -> Result<Arc<Self>, RayError> {
        let thread_error =
            |error: std::io::Error| RayError::Other { what: "a thread".to_owned(), cause: error.to_string() };
        Ok(Arc::new(Self(Arc::new(Shared {
            target,
            timer: TimerThread::start().map_err(thread_error)?,
            delivery_thread: Arc::new(TimerThread::start().map_err(thread_error)?),
            submitter: TimerThread::start().map_err(thread_error)?,
            registry: WorkerRegistry::default(),
            last_unread: LastUnread::default(),
            open_calls: OpenCalls::default(),
            state: Mutex::default(),
            room: Condvar::default(),
            functions: Mutex::default(),
            concurrency: OnceLock::new(),
        }))))
    }
}

impl Shared {
    /// Waits for a place in the queue, and takes it.
    fn admit(&self, Admission { method, deadline, key, is_admitted }: Admission, wait: bool) -> Result<(), CallError> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return Err(CallError::ShutDown { method: method.to_owned() });
            }
            if is_admitted || state.open < QUEUE {
                state.open += 1;
                state.live.insert(key);
                return Ok(());
            }
            if !wait {
                return Err(CallError::QueueFull { waiting: state.open, workers: self.registry.workers().len() });
            }
            let left = time_to_enter(method, deadline)?;
            state = self.room.wait(state, left);
        }
    }

    /// Number of tasks that the cluster runs at the same time, by its number of CPUs. At least one.
    fn concurrency(&self) -> usize {
        *self.concurrency.get_or_init(|| {
            // A cluster that does not respond fails the calls themselves.
            let resources = self.target.cluster.resources().unwrap_or_default();
            let cpus = resources.get("CPU").copied().unwrap_or(1.0);
            let each = self.target.options.cpus_per_task();
            if each > 0.0 { ((cpus / each) as usize).max(1) } else { QUEUE }
        })
    }

    fn release(&self) {
        self.state.lock().open -= 1;
        self.room.notify_one();
    }

    /// Submits a call to Ray.
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
        let Some((program, handler)) = flight.with(|call| (Arc::clone(&call.program), call.handler.clone())) else {
            return Ok(None);
        };
        let cluster = &self.target.cluster;
        let (target, arena) = self.program_of(&program, with_arena, flight.method())?;
        let trace = flight.trace(None, None);
        let request = self.request(Order::Call { target, handler, state_of: None, bundle: None, trace });
        let message = EncodedMessage::with(&request, flight.payload().clone())?;
        let reference = cluster.ask(flight.method(), |py| {
            let function = self.function(py, flight.method(), flight.attempts_left(), flight.items())?;
            let reference = function.call1(message.arguments(py, in_python(py, &arena))?)?;
            flight.sent(reference.clone().unbind());
            Ok(reference.unbind())
        })?;
        let (shared, completed) = (Arc::clone(self), flight.clone());
        let on_result = Box::new(move |result| shared.on_result(&completed, result));
        if let Some(items) = flight.items() {
            let shared = Arc::clone(self);
            let is_open = move || !shared.state.lock().closed;
            streams::read_on_thread(cluster, reference, flight, items, is_open, on_result)?;
            return Ok(None);
        }
        Ok(Some(UnreadReply::new(cluster, reference, flight.method(), &self.delivery_thread, None, on_result)))
    }

    fn request(&self, order: Order) -> Request {
        let (binary, threads) = (self.target.cluster.0.binary, self.target.options.threads());
        Request { binary, threads, own: false, whole: false, set_up: setup::get(), order }
    }

    /// Creates the target of a call. Returns the objects of the arena that are sent with it.
    fn program_of(
        &self,
        program: &Program,
        with_arena: bool,
        method: &str,
    ) -> Result<(Target, Vec<Arc<Held>>), RayError> {
        let (load, arena) = with_arena.then(|| load_of(program, method)).transpose()?.unzip();
        let live = self.state.lock().live.iter().copied().collect();
        let program = program_id(&self.target.cluster, program);
        Ok((Target { program, load, live: Some(live) }, arena.unwrap_or_default()))
    }

    fn on_result(self: &Arc<Self>, flight: &InFlightCall, result: RayResult) {
        if let Ok((Reply { took: Some(took), .. }, _)) = &result {
            self.state.lock().times.record(flight, *took);
        }
        if let Completion::Missing = flight.complete(result, &self.registry, None) {
            let (shared, flight) = (Arc::clone(self), flight.clone());
            self.timer.spawn(move || {
                if let Some(unread) = shared.send(&flight, true) {
                    unread.read_by_ray();
                }
            });
        }
    }

    fn function<'py>(
        &self,
        py: Python<'py>,
        method: &'static str,
        allowed: u32,
        items: Option<&Arc<Items>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let key = (method, allowed, items.map(|items| items.window()));
        if let Some(function) = self.functions.lock().get(&key) {
            return Ok(function.bind(py).clone());
        }
        let keywords: Bound<'_, PyDict> = self.target.options.keywords(py)?;
        keywords.set_item("name", method)?;
        let call = self.target.cluster.0.glue.bind(py).getattr(if items.is_some() { "call_stream" } else { "call" })?;
        match items {
            // Ray would send the items of another attempt in the places of those that were read.
            Some(items) => {
                keywords.set_item("max_retries", 0)?;
                streams::options(&keywords, items)?;
            }
            None => keywords.set_item("max_retries", allowed.saturating_sub(1))?,
        }
        let function = py.import("ray")?.getattr("remote")?.call((), Some(&keywords))?.call1((call,))?;
        let function = function.getattr("remote")?;
        self.functions.lock().insert(key, function.clone().unbind());
        Ok(function)
    }

    /// Fails a call whose deadline has passed, and cancels its task.
    fn on_deadline(&self, flight: &InFlightCall) {
        if !flight.expire(CallPhase::RayTask) {
            return;
        }
        // Ray kills the worker that runs the task, or removes the task from its queue.
        flight.cancel(&self.target.cluster, true);
    }
}

impl Engine for RayTasks {
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
        self.0.last_unread.hand_over();
        if self.0.leave_to_submitter(&flight) {
            return Ok(None);
        }
        let unread = self.0.send(&flight, false);
        Ok(unread.map(|unread| self.0.last_unread.receiver(&unread, &self.0.timer)))
    }

    fn cancel(&self) {
        if self.0.target.is_forked() {
            return;
        }
        let shared = Arc::downgrade(&self.0);
        self.0.open_calls.cancel(&self.0.target.cluster, &self.0.timer, move |call| {
            if let Some(shared) = shared.upgrade() {
                call.cancel(&shared.target.cluster, true);
            }
        });
    }

    /// Workers are notified with the next call that they run, or drop the pipeline when it has been
    /// idle for a while.
    fn forget(&self, key: u64) {
        if self.0.target.is_forked() {
            return;
        }
        {
            let mut state = self.0.state.lock();
            state.live.remove(&key);
            state.times.forget(key);
        }
        self.0.registry.forget(key);
    }

    fn workers(&self) -> Vec<Worker> {
        if self.0.target.is_forked() {
            return Vec::new();
        }
        self.0.registry.workers()
    }

    fn is_here(&self, worker: Worker) -> bool {
        !self.0.target.is_forked() && self.0.registry.is_here(worker)
    }

    fn size(&self) -> usize {
        self.workers().len()
    }

    fn is_open(&self) -> bool {
        // A fork gets its error when it submits.
        self.0.target.is_forked() || !self.0.state.lock().closed
    }

    fn capacity(&self) -> usize {
        QUEUE
    }

    fn batches_at_once(&self) -> Option<usize> {
        Some(self.0.concurrency())
    }

    fn shut_down(&self) {
        if self.0.target.is_forked() {
            return;
        }
        self.0.state.lock().closed = true;
        self.0.last_unread.hand_over();
        self.0.room.notify_all();
    }

    /// The workers belong to Ray, which runs the tasks that it has. No task is aborted.
    fn drain(&self, _timeout: Duration) -> usize {
        self.shut_down();
        0
    }

    fn restart(&self) -> Result<(), CallError> {
        Err(super::restart_unsupported())
    }

    fn adopt(&self, arena: Arena) -> crate::error::Result<Arena> {
        self.0.target.cluster.put_arena(&arena)
    }

    /// Ray chooses the workers of tasks, so none can be told to load a program. Each does with its first call.
    fn live_workers(&self) -> Result<Vec<usize>, CallError> {
        Ok(Vec::new())
    }

    fn set_program(&self, _program: &Arc<Program>) {}

    /// The workers belong to Ray, and serve other drivers as well.
    fn abort(&self) {
        self.shut_down();
    }

    fn attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        if self.0.target.is_forked() {
            return Vec::new();
        }
        self.0.registry.all_attached(key)
    }
}
