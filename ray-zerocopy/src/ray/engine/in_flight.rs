//! One call on its way. Whoever comes first answers it: Ray, or its deadline.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::lock;
use super::workers::WorkerRegistry;
use crate::engine::call::Call;
use crate::engine::message::Incoming;
use crate::engine::served::MethodError;
use crate::error::call::{CallError, CallPart, CallPhase, Worker};
use crate::error::ray::RayError;
use crate::ray::wire::frame::Payload;
use crate::ray::wire::protocol::{Answer, Reply};

/// A call that Ray has been given, or is about to be.
#[derive(Clone)]
pub(super) struct InFlightCall(Arc<Inner>);

/// What is called when a call is about to be answered.
type End = Box<dyn FnOnce() + Send>;

struct Inner {
    call: Mutex<Option<(Call, End)>>,
    /// What Ray calls it by.
    reference: Mutex<Option<Py<PyAny>>>,
    pub(super) method: &'static str,
    pub(super) deadline: Option<(Instant, Duration)>,
    cargo: Payload,
    /// Which actor has it; `usize::MAX` if none has.
    place: AtomicUsize,
}

/// What became of a call, for the engine.
pub(super) enum Completion {
    /// It is answered.
    Answered,
    /// The worker has not loaded the pipeline: send it again, with the arena.
    Missing,
    /// The actor's process is gone. The call is answered.
    Gone,
}

impl InFlightCall {
    /// `end` is called once, before the call is answered: a caller that is woken may drop the engine, which waits for all calls
    /// to have ended.
    pub(super) fn new(mut call: Call, end: impl FnOnce() + Send + 'static) -> Self {
        let cargo = Payload::from(std::mem::take(&mut call.args));
        let (method, deadline) = (call.method, call.deadline);
        let call = Mutex::new(Some((call, Box::new(end) as End)));
        Self(Arc::new(Inner {
            call,
            reference: Mutex::new(None),
            method,
            deadline,
            cargo,
            place: AtomicUsize::new(usize::MAX),
        }))
    }

    /// Whether it is the same call.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn method(&self) -> &'static str {
        self.0.method
    }

    pub(super) fn deadline(&self) -> Option<(Instant, Duration)> {
        self.0.deadline
    }

    pub(super) fn cargo(&self) -> &Payload {
        &self.0.cargo
    }

    /// An actor has it now.
    pub(super) fn placed(&self, index: usize) {
        self.0.place.store(index, Ordering::Release);
    }

    pub(super) fn place(&self) -> Option<usize> {
        Some(self.0.place.load(Ordering::Acquire)).filter(|place| *place != usize::MAX)
    }

    /// Whether somebody waits for it still.
    pub(super) fn is_open(&self) -> bool {
        lock(&self.0.call).is_some()
    }

    /// Something about the call, as long as it is open.
    pub(super) fn with<R>(&self, ask: impl FnOnce(&Call) -> R) -> Option<R> {
        lock(&self.0.call).as_ref().map(|(call, _)| ask(call))
    }

    pub(super) fn sent(&self, reference: Py<PyAny>) {
        *lock(&self.0.reference) = Some(reference);
    }

    pub(super) fn reference(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        lock(&self.0.reference).as_ref().map(|reference| reference.clone_ref(py))
    }

    /// Answers the call, unless that has happened. Says whether it was this.
    pub(super) fn answer(&self, result: Result<Incoming, CallError>) -> bool {
        let call = lock(&self.0.call).take();
        match call {
            Some((call, end)) => {
                end();
                call.answer(result);
                true
            }
            None => false,
        }
    }

    /// Answers with what Ray itself says.
    pub(super) fn fail(&self, error: RayError) -> bool {
        let method = self.0.method.to_owned();
        self.answer(Err(CallError::Ray { method, error }))
    }

    /// What Ray's result means for the call.
    pub(super) fn land(
        &self,
        result: Result<(Reply, Incoming), RayError>,
        known: &WorkerRegistry,
        at: Option<Worker>,
    ) -> Completion {
        let method = self.0.method.to_owned();
        let (reply, payload) = match result {
            Ok(landed) => landed,
            Err(error) => return self.lost(error, at),
        };
        let Some(key) = self.with(|call| call.program.key) else { return Completion::Answered };
        let worker = known.worker(&reply.from);
        if let Some(attached) = reply.attached {
            known.attached(key, worker, attached);
        }
        let result = match reply.answer {
            Answer::Missing => return Completion::Missing,
            Answer::Done => Ok(payload),
            Answer::Failed(MethodError::Panicked(message)) => Err(CallError::Panicked { method, worker, message }),
            Answer::Failed(MethodError::Wire { what, reason }) => {
                Err(CallError::Wire { method, part: CallPart::named(&what), reason })
            }
            Answer::Failed(MethodError::Graph(error)) => Err(CallError::Graph { method, error }),
            Answer::NotLoaded(error) => Err(CallError::Load { worker, error }),
            Answer::OtherBinary => {
                Err(CallError::Ray { method, error: RayError::OtherBinary { worker: reply.from.to_string() } })
            }
        };
        self.answer(result);
        Completion::Answered
    }

    /// There is no result: the worker died, or something else of Ray's.
    fn lost(&self, error: RayError, at: Option<Worker>) -> Completion {
        let Some((allowed, actor)) = self.with(|call| (call.allowed, call.actor)) else { return Completion::Answered };
        let method = self.0.method.to_owned();
        let worker = at.unwrap_or(Worker { index: 0, pid: 0 });
        let died = |how| CallError::WorkerDied { method, worker, how, attempts: allowed, allowed, is_actor: actor };
        match error {
            RayError::WorkerDied { cause, .. } => {
                self.answer(Err(died(cause)));
                if actor { Completion::Gone } else { Completion::Answered }
            }
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

    /// Its deadline has passed. Says whether it was open.
    pub(super) fn late(&self, phase: CallPhase) -> bool {
        let Some((_, after)) = self.0.deadline else { return false };
        let method = self.0.method.to_owned();
        self.answer(Err(CallError::Deadline { method, after, phase }))
    }
}
