//! What an answer of a worker means: for the call, and for the worker.

use std::sync::Arc;

use super::dispatch::{Dispatcher, not_started};
use super::lock;
use super::protocol::Answer;
use super::transport::Received;
use super::worker_conn::{InFlight, WorkerConn};
use crate::engine::call::Call;
use crate::engine::message::Incoming;
use crate::engine::program::{Attached, Program};
use crate::engine::served::MethodError;
use crate::error::call::{CallError, CallPart};

/// What did not arrive in the worker.
const ARGUMENTS: &str = "the arguments";

/// How a process ended.
pub(super) struct WorkerExit {
    pub(super) how: String,
    /// It has not heard of what it was last asked.
    pub(super) unheard: bool,
}

impl WorkerExit {
    pub(super) fn new(how: impl Into<String>) -> Self {
        Self { how: how.into(), unheard: false }
    }
}

impl Dispatcher {
    /// Takes an answer to what the worker was asked. A worker that says what it was not asked is not used again.
    pub(super) fn answered(&self, link: &Arc<WorkerConn>, received: Received<(u64, Answer)>) -> Option<WorkerExit> {
        let worker = link.worker;
        let (serial, answer) = received.message;
        // A request that could not be read has no number.
        if !link.is_current(serial) && !matches!(answer, Answer::Unreadable(_)) {
            return Some(WorkerExit::new(format!(
                "it answered question {serial}, which nobody had asked, and was replaced"
            )));
        }
        match (link.take(), answer) {
            (Some(InFlight::Call(call)), Answer::Done) => self.done(link, call, Ok(received.payload)),
            (Some(InFlight::Call(call)), Answer::Failed(failure)) => {
                let method = call.method.to_owned();
                let error = match failure {
                    MethodError::Panicked(message) => CallError::Panicked { method, worker, message },
                    MethodError::Wire { what, reason } => {
                        CallError::Wire { method, part: CallPart::named(&what), reason }
                    }
                    MethodError::Graph(error) => CallError::Graph { method, error },
                };
                self.done(link, call, Err(error));
            }
            (Some(InFlight::Load(program, call)), Answer::Loaded { copied, took, decoding, memory }) => {
                link.loaded(program.key, true);
                self.attached(link.worker.index, program.key, Ok(Attached { copied, took, decoding, memory }));
                match call {
                    Some(call) => self.give_on(link, call),
                    None => self.go_on(link),
                }
            }
            (Some(InFlight::Load(program, call)), Answer::NotLoaded(error)) => {
                self.not_loaded(link, &program, call, CallError::Load { worker, error });
            }
            (Some(InFlight::Forget(key)), Answer::Forgotten) => {
                link.loaded(key, false);
                self.go_on(link);
            }
            (doing, Answer::Unreadable(reason)) => {
                if let Some(doing) = doing {
                    link.put_back(doing);
                }
                return self.unreadable(link, ARGUMENTS, &reason);
            }
            (doing, answer) => {
                let end =
                    WorkerExit::new(format!("it gave an answer to another question, {answer:?}, and was replaced"));
                if let Some(doing) = doing {
                    link.put_back(doing);
                }
                return Some(end);
            }
        }
        None
    }

    /// A call is answered. The worker is free before the caller hears of it, and gets its next call after that: the
    /// caller is awake while that call is being written.
    fn done(&self, link: &Arc<WorkerConn>, call: Call, result: Result<Incoming, CallError>) {
        let next = lock(&self.state).next(link);
        call.answer(result);
        if let Some(claimed) = next {
            self.give(claimed);
        }
    }

    fn not_loaded(&self, link: &Arc<WorkerConn>, program: &Program, call: Option<Call>, error: CallError) {
        self.attached(link.worker.index, program.key, Err(error.clone()));
        let wanting = match &error {
            CallError::Load { error, .. } => error.is_for_want_of_something(),
            error => matches!(error, CallError::Start(_)),
        };
        match call {
            // What this process lacks, memory or descriptors, another may have.
            Some(call) if wanting && call.attempts < call.allowed => self.by_another(link, call),
            Some(call) => self.done(link, call, Err(error)),
            None => self.go_on(link),
        }
    }

    /// Puts a call back that this worker could not run. Another gets it if one is idle, since this one is not yet.
    fn by_another(&self, link: &Arc<WorkerConn>, call: Call) {
        if let Some(claimed) = self.put_back(call) {
            self.give(claimed);
        }
        self.go_on(link);
    }

    /// A message was lost on its way, to the worker or from it. The worker is well.
    pub(super) fn unreadable(&self, link: &Arc<WorkerConn>, what: &str, reason: &str) -> Option<WorkerExit> {
        match link.take() {
            // The worker has not received it, so that it never ran.
            Some(InFlight::Call(call)) if what == ARGUMENTS && call.attempts < call.allowed => {
                self.by_another(link, call);
                None
            }
            Some(InFlight::Call(call)) => {
                let (method, part) = (call.method.to_owned(), CallPart::named(what));
                self.done(link, call, Err(CallError::Wire { method, part, reason: reason.to_owned() }));
                None
            }
            Some(InFlight::Load(program, call)) => {
                let error = not_started(link.worker.index, &format!("the arena could not be handed over: {reason}"));
                self.not_loaded(link, &program, call, error);
                None
            }
            Some(InFlight::Forget(_) | InFlight::ShutDown) | None => {
                Some(WorkerExit::new(format!("it could not be talked to, and was replaced: {reason}")))
            }
        }
    }
}
