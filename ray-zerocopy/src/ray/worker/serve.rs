//! Executes the requests of a driver in a worker.
//!
//! Pipelines need not be `Send`, so each stays on one thread. An actor's state and pipeline are on
//! the thread on which Ray calls, which is always the same. Pipelines of tasks are on a dedicated
//! thread. It drops pipelines that have been idle for a while, which releases their arenas.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::bundle::BundledCalls;
use super::cancellation::{self, CancelledCalls, INTERVAL, Task};
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::arena::store::Container;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::program::Attached;
use crate::engine::served::{ItemSink, LoadedProgram, MethodError, Served, load_program, take_state};
use crate::engine::sys::entry::FnToken;
use crate::engine::trace::remote;
use crate::engine::trace::setup::WorkerSetUp;
use crate::error::load::LoadError;
use crate::error::ray::RayError;
use crate::os::last_call;
use crate::os::sync::Mutex;
use crate::os::sys::atexit;
use crate::panics;
use crate::ray::api::object;
use crate::ray::api::trampoline::{Job, MethodShim, Shim};
use crate::ray::store::plasma;
use crate::ray::wire::cancelled::BundleId;
use crate::ray::wire::fingerprint::Fingerprint;
use crate::ray::wire::frame::{EncodedMessage, read, read_separate};
use crate::ray::wire::protocol::{Answer, Load, Order, Origin, ProgramId, Reply, Request, Target};

/// Time after which a task worker drops an idle pipeline. `RAY_ZEROCOPY_KEEP_SECONDS` overrides it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time in which Ray takes the last answer of a process.
const TIME_TO_ANSWER: Duration = Duration::from_millis(500);

/// Result of constructing an actor.
pub(super) enum Outcome {
    Constructed,
    /// The actor could not be constructed. Contains the reason.
    Refused(String),
}

#[derive(Default)]
pub(super) struct WorkerState {
    programs: HashMap<ProgramId, Loaded>,
    state: Option<Box<dyn Any>>,
    /// Time that the last call or bundle has taken.
    last_took: Duration,
}

/// What a reply says besides the answer.
#[derive(Default)]
pub(super) struct Report {
    /// The report on the load, if a pipeline has just been loaded.
    pub(super) attached: Option<Attached>,
    /// Time that the method has taken.
    pub(super) took: Option<Duration>,
}

impl Report {
    /// Creates the reply of this process.
    pub(super) fn reply(self, answer: Answer) -> Reply {
        Reply { from: Origin::here(), attached: self.attached, answer, took: self.took }
    }
}

struct Loaded {
    served: Box<dyn Served>,
    report: Attached,
    used: Instant,
    /// Whether it belongs to an actor, which keeps it.
    is_actor: bool,
}

impl AsMut<dyn Served> for Loaded {
    fn as_mut(&mut self) -> &mut (dyn Served + 'static) {
        &mut *self.served
    }
}

pub(super) type Work = Box<dyn FnOnce(&mut WorkerState) + Send>;

thread_local! {
    /// State of an actor.
    static ACTOR_STATE: RefCell<WorkerState> = RefCell::default();
}

/// Runs `work` on the thread that executes the request, without holding Python's lock.
fn run_on_thread<R: Send + 'static>(
    py: Python<'_>,
    own: bool,
    work: impl FnOnce(&mut WorkerState) -> R + Send + 'static,
) -> Result<R, RayError> {
    if !own {
        return run_on_task_thread(py, work);
    }
    cancellation::ask_on_this_thread();
    Ok(py.detach(|| ACTOR_STATE.with_borrow_mut(work)))
}

/// Runs `work` on the thread that serves tasks, and waits for it.
fn run_on_task_thread<R: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&mut WorkerState) -> R + Send + 'static,
) -> Result<R, RayError> {
    py.detach(|| {
        let (reply, result) = channel();
        let task = Task::new();
        let running = task.clone();
        let work: Work = Box::new(move |state| {
            running.begin();
            // Fails only if the receiver is gone, which then needs no result.
            let _ = reply.send(work(state));
        });
        send_to_task_thread(work)?;
        task.wait(&result).map_err(|_| thread_error("ended".to_owned()))
    })
}

fn thread_error(how: String) -> RayError {
    RayError::Other { what: "the worker".to_owned(), cause: format!("its serving thread {how}") }
}

/// Lets the thread that serves tasks run `work`.
pub(super) fn send_to_task_thread(work: Work) -> Result<(), RayError> {
    let thread = task_thread().map_err(|error| thread_error(format!("could not be started: {error}")))?;
    thread.send(work).map_err(|_| thread_error("ended".to_owned()))
}

/// The thread that serves tasks. If it cannot be started, the next call tries again.
fn task_thread() -> std::io::Result<Sender<Work>> {
    static THREAD: Mutex<Option<Sender<Work>>> = Mutex::new(None);
    let mut thread = THREAD.lock();
    if let Some(orders) = &*thread {
        return Ok(orders.clone());
    }
    let (orders, work) = channel::<Work>();
    let run = move || {
        let mut state = WorkerState::default();
        loop {
            match work.recv_timeout(idle_timeout() / 4) {
                // Panics of a pipeline's methods are caught in `serve`. This catches panics of its
                // destructor.
                Ok(work) => {
                    panics::caught(|| work(&mut state)).ok();
                }
                Err(RecvTimeoutError::Timeout) => state.drop_idle(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    std::thread::Builder::new().name("ray-zerocopy serve".to_owned()).spawn(run)?;
    Ok(thread.insert(orders).clone())
}

fn idle_timeout() -> Duration {
    let seconds = std::env::var("RAY_ZEROCOPY_KEEP_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(IDLE_TIMEOUT, Duration::from_secs).max(Duration::from_millis(400))
}

/// Data that was sent with a request.
pub(super) struct Inputs {
    /// The arguments, or the arguments by reference.
    arguments: Result<Incoming, MethodError>,
    /// The containers of an arena.
    arena: Vec<bytes::Bytes>,
}

/// Decodes a request and the data sent with it.
pub(super) fn inputs(head: &Bound<'_, PyAny>, rest: &Bound<'_, PyTuple>) -> Result<(Request, Inputs), RayError> {
    let mut rest: Vec<_> = rest.iter().collect();
    let (request, inside) = read::<Request>(head, [])?;
    let by_reference = matches!(
        request.order,
        Order::Function { by_reference: true, .. }
            | Order::Construct { by_reference: true, .. }
            | Order::Method { by_reference: true, .. }
    );
    let containers = match &request.order {
        Order::Load { load, .. }
        | Order::Call { target: Target { load: Some(load), .. }, .. }
        | Order::Bundle { target: Target { load: Some(load), .. }, .. } => load.containers,
        _ => 0,
    };
    let arena: Result<Vec<_>, _> =
        rest.drain(..containers.min(rest.len())).map(|object| plasma::bytes(&object)).collect();
    let arena = arena?;
    let arguments = match (by_reference, rest.is_empty()) {
        (_, true) => Ok(inside),
        (true, false) => object::content(&rest.remove(0)),
        (false, false) => Ok(read_separate(rest)?),
    };
    Ok((request, Inputs { arguments, arena }))
}

/// Returns why this process cannot run a request: it runs another build than the driver.
pub(super) fn refusal(request: &Request) -> Option<Answer> {
    match Fingerprint::own() {
        Ok(own) if own == request.binary => None,
        Ok(_) => Some(Answer::OtherBinary),
        Err(reason) => Some(Answer::Failed(no_code(reason))),
    }
}

/// Executes a request.
///
/// # Errors
/// If the message cannot be decoded.
pub(super) fn answer(
    py: Python<'_>,
    head: &Bound<'_, PyAny>,
    rest: &Bound<'_, PyTuple>,
) -> Result<EncodedMessage, RayError> {
    let (request, inputs) = inputs(head, rest)?;
    let whole = request.whole;
    let reply = |report: Report, answer, payload| {
        let reply = report.reply(answer);
        if whole { EncodedMessage::whole(&reply, payload) } else { EncodedMessage::new(&reply, payload) }
    };
    if let Some(refusal) = refusal(&request) {
        return reply(Report::default(), refusal, Outgoing::default());
    }
    start(request.threads, request.set_up);
    let (own, order) = (request.own, request.order);
    let (report, answer, payload) = run_on_thread(py, own, move |state| state.answer(order, inputs, None))?;
    reply(report, answer, payload)
}

/// Constructs the state of an actor.
///
/// # Errors
/// If the message cannot be decoded.
pub(super) fn construct_actor(
    py: Python<'_>,
    head: &Bound<'_, PyAny>,
    rest: &Bound<'_, PyTuple>,
) -> Result<Outcome, RayError> {
    let (request, inputs) = inputs(head, rest)?;
    match Fingerprint::own() {
        Ok(own) if own == request.binary => {}
        Ok(_) => {
            return Ok(Outcome::Refused(RayError::OtherBinary { worker: Origin::here().to_string() }.to_string()));
        }
        Err(reason) => return Ok(Outcome::Refused(reason)),
    }
    start(request.threads, request.set_up);
    let (own, order) = (request.own, request.order);
    let result = run_on_thread(py, own, move |state| state.answer(order, inputs, None))?;
    Ok(match result.1 {
        Answer::Done => Outcome::Constructed,
        Answer::Failed(MethodError::Panicked(message)) => Outcome::Refused(format!("the actor panicked: {message}")),
        other => Outcome::Refused(format!("{other:?}")),
    })
}

/// Prepares this process for its first request. Does nothing for later ones.
pub(super) fn start(threads: usize, set_up: Option<WorkerSetUp>) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    use_threads(threads);
    ONCE.call_once(|| {
        // The calls run without it. The reason is in the log of the worker.
        if let Some(Err(reason)) = set_up.map(WorkerSetUp::run) {
            eprintln!("ray-zerocopy worker {}: the set-up of workers could not be run: {reason}", std::process::id());
        }
    });
}

/// Limits a worker to the cores that Ray has assigned to it. Only the first call has an effect: the
/// threads of a process are started at first use.
pub fn use_threads(threads: usize) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            // Fails if user code has already started the threads, which takes precedence.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
    });
}

/// Ends this process when Ray has taken its answer: it cannot compute on its device any more. Ray starts another one.
fn end_soon() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let end = || {
            std::thread::sleep(TIME_TO_ANSWER);
            eprintln!(
                "ray-zerocopy worker {}: it ends, since it cannot compute on its device any more",
                std::process::id()
            );
            atexit::at_once(1)
        };
        // Without the thread, its calls fail.
        let _started = std::thread::Builder::new().name("ray-zerocopy end".to_owned()).spawn(end);
    });
}

fn no_state() -> Answer {
    let (what, reason) = ("the call".to_owned(), "the actor has no state".to_owned());
    Answer::Failed(MethodError::Wire { what, reason })
}

fn no_code(error: impl ToString) -> MethodError {
    MethodError::Wire { what: "the function".to_owned(), reason: error.to_string() }
}

fn done(payload: Outgoing) -> (Answer, Outgoing) {
    (Answer::Done, payload)
}

/// Runs user code.
fn run<T>(work: impl FnOnce() -> Result<T, MethodError>) -> Result<T, Answer> {
    panics::caught(work).unwrap_or_else(|panic| Err(MethodError::Panicked(panic))).map_err(Answer::Failed)
}

impl WorkerState {
    /// Executes an order, and returns the parts of its reply. The items of a method that returns a stream go to
    /// `items`.
    pub(super) fn answer(
        &mut self,
        order: Order,
        inputs: Inputs,
        items: Option<ItemSink>,
    ) -> (Report, Answer, Outgoing) {
        let mut report = Report::default();
        let result = self.serve(order, inputs, &mut report, items);
        let (answer, payload) = result.unwrap_or_else(|answer| (answer, Outgoing::default()));
        if last_call::is_requested() {
            end_soon();
        }
        (report, answer, payload)
    }

    fn serve(
        &mut self,
        order: Order,
        inputs: Inputs,
        report: &mut Report,
        items: Option<ItemSink>,
    ) -> Result<(Answer, Outgoing), Answer> {
        let Inputs { arguments, arena } = inputs;
        let job = |function: FnToken| arguments.clone().map(|arguments| Job { function, arguments });
        match order {
            Order::Function { shim, function, .. } => {
                run(|| shim.resolve::<Shim>().map_err(no_code)?(job(function)?)).map(done)
            }
            Order::Construct { shim, function, .. } => {
                let construct =
                    || shim.resolve::<fn(Job) -> Result<Box<dyn Any>, MethodError>>().map_err(no_code)?(job(function)?);
                self.state = Some(run(construct)?);
                Ok(done(Outgoing::default()))
            }
            Order::Method { shim, function, .. } => {
                let state = self.state.as_mut().ok_or_else(no_state)?;
                run(|| shim.resolve::<MethodShim>().map_err(no_code)?(state, job(function)?)).map(done)
            }
            Order::Load { program, load } => {
                let loaded = match self.programs.entry(program) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => {
                        let (served, report) = self::load(load, arena).map_err(Answer::NotLoaded)?;
                        entry.insert(Loaded { served, report, used: Instant::now(), is_actor: true })
                    }
                };
                report.attached = Some(loaded.report.clone());
                Ok(done(Outgoing::default()))
            }
            Order::Call { target, handler, state_of: None, bundle, trace } => {
                // It waits behind one call of the actor.
                let cancelled = |id| CancelledCalls::new(BundleId::new(&target.program, id), self.last_took);
                let cancelled = bundle.map(cancelled);
                let loaded = self.program(target, arena, report)?;
                let _running = match &cancelled {
                    Some(cancelled) => Some(cancelled.begin(0).ok_or(Answer::Skipped)?),
                    None => None,
                };
                let arguments = arguments.map_err(Answer::Failed)?;
                let result = remote::run(trace.as_ref(), || loaded.served.call(&handler, arguments, items));
                self.last_took = loaded.used.elapsed();
                report.took = Some(self.last_took);
                result.map(done).map_err(Answer::Failed)
            }
            Order::Call { target, handler, state_of: Some(from), .. } => {
                let to = target.program;
                self.program(target, arena, report)?;
                take_state(&mut self.programs, from, to, &handler).map(done).map_err(Answer::Failed)
            }
            Order::Forget { program } => {
                let forgotten = self.programs.remove(&program);
                // A panic of the pipeline's destructor has been printed, and does not affect other programs.
                panics::caught(|| drop(forgotten)).ok();
                Ok(done(Outgoing::default()))
            }
            Order::Bundle { target, bundle } => {
                let (last_took, program) = (self.last_took, target.program);
                let loaded = self.program(target, arena, report)?;
                // It waits behind one call of an actor, and for a worker of tasks as long as it takes.
                let waited = if loaded.is_actor { last_took } else { INTERVAL };
                let calls = BundledCalls::new(&program, &bundle, &arguments.map_err(Answer::Failed)?, waited)?;
                let (answers, results) = calls.run(loaded.served.as_mut());
                self.last_took = loaded.used.elapsed();
                Ok((Answer::Bundle(answers), results))
            }
        }
    }

    /// Returns a program. Loads it first, if its arena was sent with the order. A worker of tasks drops those that
    /// the driver does not use any more, which releases their arenas.
    fn program(
        &mut self,
        Target { program, load, live }: Target,
        arena: Vec<bytes::Bytes>,
        report: &mut Report,
    ) -> Result<&mut Loaded, Answer> {
        if let Some(live) = &live {
            self.programs.retain(|id, loaded| loaded.is_actor || id.driver != program.driver || live.contains(&id.key));
        }
        if let (Some(load), false) = (load, self.programs.contains_key(&program)) {
            let (served, attached) = self::load(load, arena).map_err(Answer::NotLoaded)?;
            report.attached = Some(attached.clone());
            let loaded = Loaded { served, report: attached, used: Instant::now(), is_actor: live.is_none() };
            self.programs.insert(program, loaded);
        }
        let loaded = self.programs.get_mut(&program).ok_or(Answer::Missing)?;
        loaded.used = Instant::now();
        Ok(loaded)
    }

    /// Drops pipelines that have been idle for a while.
    fn drop_idle(&mut self) {
        let idle_timeout = idle_timeout();
        let old = self.programs.extract_if(|_, loaded| !loaded.is_actor && loaded.used.elapsed() > idle_timeout);
        for (_, loaded) in old {
            // A panic of the pipeline's destructor has been printed, and does not affect other
            // programs.
            panics::caught(|| drop(loaded)).ok();
        }
    }
}

fn load(load: Load, arena: Vec<bytes::Bytes>) -> Result<(Box<dyn Served>, Attached), LoadError> {
    let start = Instant::now();
    let arena = Arena::from_containers(arena.into_iter().map(|bytes| Container::in_store(bytes, None)))?;
    // Memory policies are not applied to the object store.
    let Load { loader, device, strict, prewarm, .. } = load;
    let (LoadedProgram { served, copied, device, decoding, prewarming }, memory) =
        load_program(arena, &loader, device, strict, MemoryPolicy::default(), prewarm)?;
    let took = start.elapsed().saturating_sub(prewarming);
    Ok((served, Attached { copied, device, took, decoding, memory, instructions: Attached::instructions() }))
}
