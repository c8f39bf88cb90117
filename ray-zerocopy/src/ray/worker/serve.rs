//! The worker's side: takes orders, and answers them.
//!
//! Pipelines need not be `Send`, so each lives on one thread. What an actor has is on the thread on which Ray calls, always the
//! same. What tasks have loaded is on a thread of its own, which drops what no task has asked for in a while, and with it the hold
//! on its arena.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arena::arena::Arena;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::program::Attached;
use crate::engine::served::MethodError;
use crate::engine::served::{LoadRequest, LoadedProgram, Loader, Served};
use crate::engine::sys::entry::FnToken;
use crate::error::load::LoadError;
use crate::error::ray::RayError;
use crate::panics;
use crate::ray::api::object;
use crate::ray::api::trampoline::{Job, MethodShim, Shim};
use crate::ray::store::plasma;
use crate::ray::wire::fingerprint::Fingerprint;
use crate::ray::wire::frame::{EncodedMessage, beside, read};
use crate::ray::wire::protocol::{Answer, Load, Order, Origin, ProgramId, Reply, Request};

/// For how long a task worker keeps a pipeline that nobody asks for. `RAY_ZEROCOPY_KEEP_SECONDS` says otherwise.
const KEEP: Duration = Duration::from_secs(60);

/// What became of an actor's beginning.
pub(super) enum Outcome {
    Begun,
    /// Why there is no such actor.
    Refused(String),
}

#[derive(Default)]
struct WorkerState {
    programs: HashMap<ProgramId, Loaded>,
    state: Option<Box<dyn Any>>,
}

struct Loaded {
    served: Box<dyn Served>,
    told: Attached,
    used: Instant,
    /// Whether it is an actor's, which keeps it.
    kept: bool,
}

type Work = Box<dyn FnOnce(&mut WorkerState) + Send>;

thread_local! {
    /// What an actor has.
    static OWN: RefCell<WorkerState> = RefCell::default();
}

/// Runs `work` where the order belongs, without Python.
fn on_place<R: Send + 'static>(
    py: Python<'_>,
    own: bool,
    work: impl FnOnce(&mut WorkerState) -> R + Send + 'static,
) -> Result<R, RayError> {
    match own {
        true => Ok(py.detach(|| OWN.with_borrow_mut(work))),
        false => run_on_task_thread(py, work),
    }
}

/// Runs `work` on the thread that serves tasks, and waits for it.
fn run_on_task_thread<R: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce(&mut WorkerState) -> R + Send + 'static,
) -> Result<R, RayError> {
    let failed = |cause: String| RayError::Other { what: "the worker".to_owned(), cause };
    py.detach(|| {
        let (reply, answer) = channel();
        let work: Work = Box::new(move |shop| drop(reply.send(work(shop))));
        let thread = thread().map_err(|error| failed(format!("its serving thread could not be started: {error}")))?;
        let ended = || failed("its serving thread ended".to_owned());
        thread.send(work).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())
    })
}

/// The thread that serves tasks. One that could not be started is tried again at the next call.
fn thread() -> std::io::Result<Sender<Work>> {
    static THREAD: Mutex<Option<Sender<Work>>> = Mutex::new(None);
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(orders) = &*thread {
        return Ok(orders.clone());
    }
    let (orders, work) = channel::<Work>();
    let run = move || {
        let mut shop = WorkerState::default();
        loop {
            match work.recv_timeout(keep() / 4) {
                // A panic of the pipeline is caught where it is called. What is left is the drop of one.
                Ok(work) => drop(panics::caught(|| work(&mut shop))),
                Err(RecvTimeoutError::Timeout) => shop.tidy(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    std::thread::Builder::new().name("ray-zerocopy serve".to_owned()).spawn(run)?;
    Ok(thread.insert(orders).clone())
}

fn keep() -> Duration {
    let seconds = std::env::var("RAY_ZEROCOPY_KEEP_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(KEEP, Duration::from_secs).max(Duration::from_millis(400))
}

/// What an order needs beside itself.
struct Inputs {
    /// The arguments, or the arguments by reference.
    arguments: Result<Incoming, MethodError>,
    /// The arena's bytes.
    arena: Option<bytes::Bytes>,
}

/// Reads an order and what came with it.
fn inputs(head: &Bound<'_, PyAny>, rest: &Bound<'_, PyTuple>) -> Result<(Request, Inputs), RayError> {
    let mut rest: Vec<_> = rest.iter().collect();
    let (request, inside) = read::<Request>(head, [])?;
    let by_reference = matches!(
        request.order,
        Order::Function { by_reference: true, .. }
            | Order::Begin { by_reference: true, .. }
            | Order::Method { by_reference: true, .. }
    );
    let with_arena = matches!(request.order, Order::Load { .. } | Order::Call { load: Some(_), .. });
    let mut arena = None;
    if with_arena && !rest.is_empty() {
        arena = Some(plasma::bytes(&rest.remove(0))?);
    }
    let arguments = match (by_reference, rest.is_empty()) {
        (_, true) => Ok(inside),
        (true, false) => object::content(&rest.remove(0)),
        (false, false) => Ok(beside(rest)?),
    };
    Ok((request, Inputs { arguments, arena }))
}

/// Answers an order.
///
/// # Errors
/// If it is none.
pub(super) fn answer(
    py: Python<'_>,
    head: &Bound<'_, PyAny>,
    rest: &Bound<'_, PyTuple>,
) -> Result<EncodedMessage, RayError> {
    let (request, inputs) = inputs(head, rest)?;
    let whole = request.whole;
    let reply = |attached, answer, payload| {
        let reply = Reply { from: Origin::here(), attached, answer };
        if whole { EncodedMessage::whole(&reply, payload) } else { EncodedMessage::new(&reply, payload) }
    };
    match Fingerprint::own() {
        Ok(own) if own == request.binary => {}
        Ok(_) => return reply(None, Answer::OtherBinary, Outgoing::default()),
        Err(reason) => return reply(None, Answer::Failed(no_code(reason)), Outgoing::default()),
    }
    use_threads(request.threads);
    let (own, order) = (request.own, request.order);
    let (attached, result) = on_place(py, own, move |shop| {
        let mut attached = None;
        let result = shop.serve(order, inputs, &mut attached);
        (attached, result)
    })?;
    match result {
        Ok(payload) => reply(attached, Answer::Done, payload),
        Err(answer) => reply(attached, answer, Outgoing::default()),
    }
}

/// Begins an actor.
///
/// # Errors
/// If the order is none.
pub(super) fn begin(py: Python<'_>, head: &Bound<'_, PyAny>, rest: &Bound<'_, PyTuple>) -> Result<Outcome, RayError> {
    let (request, inputs) = inputs(head, rest)?;
    match Fingerprint::own() {
        Ok(own) if own == request.binary => {}
        Ok(_) => {
            return Ok(Outcome::Refused(RayError::OtherBinary { worker: Origin::here().to_string() }.to_string()));
        }
        Err(reason) => return Ok(Outcome::Refused(reason)),
    }
    use_threads(request.threads);
    let (own, order) = (request.own, request.order);
    let begun = on_place(py, own, move |shop| shop.serve(order, inputs, &mut None))?;
    Ok(match begun {
        Ok(_) => Outcome::Begun,
        Err(Answer::Failed(MethodError::Panicked(message))) => {
            Outcome::Refused(format!("the actor panicked: {message}"))
        }
        Err(other) => Outcome::Refused(format!("{other:?}")),
    })
}

/// A worker computes with the cores that Ray has given it. Once: the threads of a process are made at first use.
pub fn use_threads(threads: usize) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("RAYON_NUM_THREADS").is_none() {
            // User code may have made the threads before, which is its right.
            drop(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global());
        }
    });
}

fn no_state() -> Answer {
    let (what, reason) = ("the call".to_owned(), "the actor has no state".to_owned());
    Answer::Failed(MethodError::Wire { what, reason })
}

fn no_code(error: impl ToString) -> MethodError {
    MethodError::Wire { what: "the function".to_owned(), reason: error.to_string() }
}

/// Runs the code of a user.
fn run<T>(work: impl FnOnce() -> Result<T, MethodError>) -> Result<T, Answer> {
    panics::caught(work).unwrap_or_else(|panic| Err(MethodError::Panicked(panic))).map_err(Answer::Failed)
}

impl WorkerState {
    fn serve(&mut self, order: Order, inputs: Inputs, attached: &mut Option<Attached>) -> Result<Outgoing, Answer> {
        let Inputs { arguments, arena } = inputs;
        let job = |function: FnToken| arguments.clone().map(|arguments| Job { function, arguments });
        match order {
            Order::Function { shim, function, .. } => run(|| shim.resolve::<Shim>().map_err(no_code)?(job(function)?)),
            Order::Begin { shim, function, .. } => {
                let begin =
                    || shim.resolve::<fn(Job) -> Result<Box<dyn Any>, MethodError>>().map_err(no_code)?(job(function)?);
                self.state = Some(run(begin)?);
                Ok(Outgoing::default())
            }
            Order::Method { shim, function, .. } => {
                let state = self.state.as_mut().ok_or_else(no_state)?;
                run(|| shim.resolve::<MethodShim>().map_err(no_code)?(state, job(function)?))
            }
            Order::Load { program, load } => {
                let loaded = match self.programs.entry(program) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => {
                        let (served, told) = self::load(load, arena).map_err(Answer::NotLoaded)?;
                        entry.insert(Loaded { served, told, used: Instant::now(), kept: true })
                    }
                };
                *attached = Some(loaded.told.clone());
                Ok(Outgoing::default())
            }
            Order::Call { program, handler, load, live } => {
                // What their owner has dropped is dropped here, with the hold on its arena.
                self.programs.retain(|id, loaded| loaded.kept || id.driver != program.driver || live.contains(&id.key));
                if let (Some(load), false) = (load, self.programs.contains_key(&program)) {
                    let (served, told) = self::load(load, arena).map_err(Answer::NotLoaded)?;
                    *attached = Some(told.clone());
                    self.programs.insert(program, Loaded { served, told, used: Instant::now(), kept: false });
                }
                let loaded = self.programs.get_mut(&program).ok_or(Answer::Missing)?;
                loaded.used = Instant::now();
                loaded.served.call(&handler, arguments.map_err(Answer::Failed)?).map_err(Answer::Failed)
            }
        }
    }

    /// Drops what nobody has asked for in a while.
    fn tidy(&mut self) {
        let keep = keep();
        let old = self.programs.extract_if(|_, loaded| !loaded.kept && loaded.used.elapsed() > keep);
        for (_, loaded) in old {
            // A panic of the pipeline's `drop` has been printed, and harms no other program.
            drop(panics::caught(|| drop(loaded)));
        }
    }
}

fn load(load: Load, arena: Option<bytes::Bytes>) -> Result<(Box<dyn Served>, Attached), LoadError> {
    let begun = Instant::now();
    let rebuild = |reason: String| LoadError::Rebuild { pipeline: "the pipeline".to_owned(), reason };
    let arena = arena.ok_or_else(|| rebuild("its arena did not come along".to_owned()))?;
    let arena = Arena::from_store(arena, None)?;
    let loader: Loader = load.loader.resolve().map_err(|error| rebuild(error.to_string()))?;
    let pipeline = arena.pipeline().to_owned();
    let request = LoadRequest { arena, device: load.device, strict: load.strict };
    let LoadedProgram { served, copied, decoding } = panics::caught(|| loader(request))
        .unwrap_or_else(|reason| Err(LoadError::Rebuild { pipeline, reason: format!("it panicked: {reason}") }))?;
    Ok((served, Attached { copied, took: begun.elapsed(), decoding, memory: Default::default() }))
}
