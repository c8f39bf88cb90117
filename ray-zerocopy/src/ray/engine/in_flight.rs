//! A call that has been submitted to Ray. The first of its result and its deadline completes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::sent_bundle::SentBundle;
use super::workers::WorkerRegistry;
use crate::engine::call::Call;
use crate::engine::call::items::Items;
use crate::engine::message::Incoming;
use crate::engine::program::Program;
use crate::engine::trace::remote::CallContext;
use crate::error::call::{CallError, CallPhase, Worker};
use crate::error::ray::RayError;
use crate::os::sync::Mutex;
use crate::ray::api::cluster::Cluster;
use crate::ray::wire::frame::Payload;
use crate::ray::wire::protocol::{Answer, Reply};

/// A call that has been submitted to Ray, or is about to be.
#[derive(Clone)]
pub(super) struct InFlightCall(Arc<Inner>);

/// Callback that runs before a call is completed.
type OnEnd = Box<dyn FnOnce() + Send>;

struct Inner {
    call: Mutex<Option<(Call, OnEnd)>>,
    /// Calls of one engine are numbered in the order in which they were made.
    number: u64,
    sent: Mutex<Sent>,
    pub(super) method: &'static str,
    program_key: u64,
    pub(super) deadline: Option<(Instant, Duration)>,
    /// Whether no other call may run on its actor meanwhile: one that may cost the actor's life, or moves
    /// its state to other weights.
    needs_idle_actor: bool,
    payload: Payload,
    /// Size of its arguments in bytes, if it may be sent together with other calls.
    bundled_size: Option<usize>,
    /// Where its items go, if it returns a stream.
    items: Option<Arc<Items>>,
    /// Index of the actor that runs it, or `usize::MAX`.
    actor: AtomicUsize,
    /// Number of attempts that were lost, and that Ray does not count.
    lost: AtomicU32,
    /// Whether Ray has a result. The call may be completed before.
    has_result: AtomicBool,
}

/// How a call was sent to Ray.
enum Sent {
    Not,
    /// Alone. Contains Ray's reference of the result.
    Alone(Py<PyAny>),
    /// As the call of a bundle with this number.
    Bundled(Arc<SentBundle>, usize),
}

/// The reply to a call, or the error of Ray.
pub(super) type RayResult = Result<(Reply, Incoming), RayError>;

/// Outcome of a call, for the engine.
pub(super) enum Completion {
    /// The call is completed.
    Answered,
    /// The worker has not loaded the pipeline: the call must be sent again, with the arena.
    Missing,
    /// The actor's process has died. The call has an attempt left, and must be sent again.
    Lost,
    /// The actor's process has died. The call is completed.
    Gone,
}

impl InFlightCall {
    /// `end` is called once, before the call is completed: a woken caller may drop the engine,
    /// which waits until all calls have ended.
    pub(super) fn new(mut call: Call, number: u64, end: impl FnOnce() + Send + 'static) -> Self {
        let payload = Payload::from(std::mem::take(&mut call.args));
        let (method, deadline) = (call.method, call.deadline);
        let (items, program_key) = (call.reply.items().cloned(), call.program.key);
        let needs_idle_actor = deadline.is_some() || call.grace().is_some() || call.state_of.is_some();
        let is_lone = items.is_some() || needs_idle_actor || call.is_batch();
        let bundled_size = (!is_lone).then(|| payload.len());
        let call = Mutex::new(Some((call, Box::new(end) as OnEnd)));
        Self(Arc::new(Inner {
            call,
            number,
            sent: Mutex::new(Sent::Not),
            method,
            program_key,
            deadline,
            needs_idle_actor,
            payload,
            bundled_size,
            items,
            actor: AtomicUsize::new(usize::MAX),
            lost: AtomicU32::new(0),
            has_result: AtomicBool::new(false),
        }))
    }

    /// Returns `true` if both are the same call.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn number(&self) -> u64 {
        self.0.number
    }

    pub(super) fn method(&self) -> &'static str {
        self.0.method
    }

    /// Its program. Returns `None` if it is completed.
    pub(super) fn program(&self) -> Option<Arc<Program>> {
        self.with(|call| Arc::clone(&call.program))
    }

    pub(super) fn program_key(&self) -> u64 {
        self.0.program_key
    }

    /// Number of attempts that are left, or 0 if it is completed.
    pub(super) fn attempts_left(&self) -> u32 {
        self.with(|call| call.allowed).unwrap_or(0).saturating_sub(self.0.lost.load(Ordering::Acquire))
    }

    /// Records that the worker has died that ran the call. It will be sent again.
    pub(super) fn lost_an_attempt(&self) {
        self.0.lost.fetch_add(1, Ordering::AcqRel);
        self.returned();
    }

    pub(super) fn deadline(&self) -> Option<(Instant, Duration)> {
        self.0.deadline
    }

    /// Returns `true` if no other call may run on its actor meanwhile: the actor may be killed because of this
    /// one, or its state moves to other weights.
    pub(super) fn needs_idle_actor(&self) -> bool {
        self.0.needs_idle_actor
    }

    pub(super) fn payload(&self) -> &Payload {
        &self.0.payload
    }

    /// Size of its arguments in bytes, if it may be sent together with other calls. Not if the actor that runs
    /// it may be killed because of it, if it returns a stream, or if it is a batch.
    pub(super) fn bundled_size(&self) -> Option<usize> {
        self.0.bundled_size
    }

    /// Where its items go, if it returns a stream.
    pub(super) fn items(&self) -> Option<&Arc<Items>> {
        self.0.items.as_ref()
    }

    /// Records the actor that runs the call.
    pub(super) fn assign(&self, index: usize) {
        self.0.actor.store(index, Ordering::Release);
        self.with(Call::begins);
    }

    pub(super) fn assigned(&self) -> Option<usize> {
        Some(self.0.actor.load(Ordering::Acquire)).filter(|index| *index != usize::MAX)
    }

    /// Records that the call was not sent, because it was completed before.
    pub(super) fn not_sent(&self) {
        self.0.has_result.store(true, Ordering::Release);
    }

    /// Returns `true` if Ray has a result, so that no worker runs the call.
    pub(super) fn has_result(&self) -> bool {
        self.0.has_result.load(Ordering::Acquire)
    }

    /// Returns `true` if the call is not completed.
    pub(super) fn is_open(&self) -> bool {
        self.0.call.lock().is_some()
    }

    /// Reads the call. Returns `None` if it is completed.
    pub(super) fn with<R>(&self, ask: impl FnOnce(&Call) -> R) -> Option<R> {
        self.0.call.lock().as_ref().map(|(call, _)| ask(call))
    }

    /// Records that the call is about to be sent. Returns what the worker is told of it, if it is traced.
    pub(super) fn trace(&self, index: Option<usize>, worker: Option<Worker>) -> Option<CallContext> {
        let mut call = self.0.call.lock();
        let (call, _) = call.as_mut()?;
        call.sent_to(worker);
        call.context(index)
    }

    pub(super) fn sent(&self, reference: Py<PyAny>) {
        self.with(Call::begins);
        self.set_sent(Sent::Alone(reference));
    }

    /// Records that the call is sent as this call of a bundle.
    pub(super) fn sent_in(&self, bundle: &Arc<SentBundle>, number: usize) {
        self.with(Call::begins);
        self.set_sent(Sent::Bundled(Arc::clone(bundle), number));
    }

    /// Records that the worker has not run the call, and that it will be sent again.
    pub(super) fn returned(&self) {
        let sent = std::mem::replace(&mut *self.0.sent.lock(), Sent::Not);
        drop(sent);
        if let Some((call, _)) = &mut *self.0.call.lock() {
            call.requeued();
        }
    }

    fn set_sent(&self, sent: Sent) {
        let before = std::mem::replace(&mut *self.0.sent.lock(), sent);
        drop(before);
        // It may have had the result that the worker lacks the pipeline.
        self.0.has_result.store(false, Ordering::Release);
    }

    /// Cancels the call in Ray. `force` kills the worker of a task.
    pub(super) fn cancel(&self, cluster: &Cluster, force: bool) {
        let bundled = match &*self.0.sent.lock() {
            Sent::Bundled(bundle, number) => Some((Arc::clone(bundle), *number)),
            Sent::Not | Sent::Alone(_) => None,
        };
        if let Some((bundle, number)) = bundled {
            return bundle.cancel(cluster, number);
        }
        // An error means that it has ended, or that it runs in a compiled graph, which cannot be
        // cancelled.
        let _ = cluster.ask("cancel", |py| {
            let reference = match &*self.0.sent.lock() {
                Sent::Alone(reference) => reference.clone_ref(py),
                Sent::Not | Sent::Bundled(..) => return Ok(()),
            };
            let arguments = PyDict::new(py);
            arguments.set_item("force", force)?;
            py.import("ray")?.call_method("cancel", (reference,), Some(&arguments)).map(drop)
        });
    }

    /// Completes the call. Returns `false` if it was completed already.
    pub(super) fn answer(&self, result: Result<Incoming, CallError>) -> bool {
        let call = self.0.call.lock().take();
        match call {
            Some((call, end)) => {
                end();
                call.answer(result);
                true
            }
            None => false,
        }
    }

    /// Completes the call with an error of Ray.
    pub(super) fn fail(&self, error: RayError) -> bool {
        let method = self.0.method.to_owned();
        self.answer(Err(CallError::Ray { method, error }))
    }

    /// Completes the call with a result of Ray.
    pub(super) fn complete(&self, result: RayResult, registry: &WorkerRegistry, at: Option<Worker>) -> Completion {
        self.0.has_result.store(true, Ordering::Release);
        let method = self.0.method.to_owned();
        let (reply, payload) = match result {
            Ok(result) => result,
            Err(error) => return self.complete_with_error(error, at),
        };
        let Some(key) = self.with(|call| call.program.key) else { return Completion::Answered };
        let worker = registry.worker(&reply.from);
        if let Some(attached) = reply.attached {
            registry.attached(key, worker, attached);
        }
        let result = match reply.answer {
            Answer::Missing => return Completion::Missing,
            Answer::Done | Answer::Item => Ok(payload),
            Answer::Failed(failure) => Err(failure.of(&method, worker)),
            Answer::NotLoaded(error) => Err(CallError::Load { worker, error }),
            Answer::OtherBinary => {
                Err(CallError::Ray { method, error: RayError::OtherBinary { worker: reply.from.to_string() } })
            }
            Answer::Skipped => Err(CallError::Cancelled { method }),
            Answer::Bundle(_) => {
                let (what, reason) = ("the reply of a call".to_owned(), "it is that of a bundle".to_owned());
                Err(CallError::Ray { method, error: RayError::Wire { what, reason } })
            }
        };
        self.answer(result);
        Completion::Answered
    }

    /// Completes the call with an error of Ray, such as the death of a worker.
    fn complete_with_error(&self, error: RayError, at: Option<Worker>) -> Completion {
        let Some((allowed, actor)) = self.with(|call| (call.allowed, call.actor)) else { return Completion::Answered };
        let method = self.0.method.to_owned();
        let worker = at.unwrap_or(Worker { index: 0, pid: 0 });
        let died = |how| CallError::WorkerDied { method, worker, how, attempts: allowed, allowed, is_actor: actor };
        match error {
            RayError::WorkerDied { .. } if actor && self.attempts_left() > 1 => Completion::Lost,
            RayError::WorkerDied { cause, .. } => {
                self.answer(Err(died(cause)));
                if actor { Completion::Gone } else { Completion::Answered }
            }
            RayError::ActorDied { .. } if self.attempts_left() > 1 => Completion::Lost,
            RayError::ActorDied { cause, .. } => {
                self.answer(Err(died(cause)));
                Completion::Gone
            }
            error => {
                self.fail(error);
                Completion::Answered
            }
        }
    }

    /// Completes the call because its deadline has passed. Returns `false` if it was completed
    /// already.
    pub(super) fn expire(&self, phase: CallPhase) -> bool {
        let Some((_, after)) = self.0.deadline else { return false };
        let method = self.0.method.to_owned();
        self.answer(Err(CallError::Deadline { method, after, phase }))
    }
}
