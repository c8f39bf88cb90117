//! Answers of calls that do not run, or that have lost their worker.

use std::time::Duration;

use crate::engine::call::Call;
use crate::error::call::{CallError, CallPhase, StartError, Worker};
use crate::panics;

/// Drops a call that has been answered: it was cancelled.
pub(in crate::engine) fn discard<T>(call: T) {
    // Dropping the program may run user code.
    panics::caught(|| drop(call)).ok();
}

/// Answers a call whose deadline has passed.
pub(in crate::engine) fn fail_expired(call: Call, phase: CallPhase) {
    let after = call.deadline.map_or(Duration::ZERO, |(_, after)| after);
    let error = CallError::Deadline { method: call.method.to_owned(), after, phase };
    call.answer(Err(error));
}

/// Answers a call that does not run because the pool has been shut down.
pub(in crate::engine) fn fail_shut_down(call: Call) {
    let method = call.method.to_owned();
    call.answer(Err(CallError::ShutDown { method }));
}

/// Answers a call whose worker died at its last attempt.
pub(in crate::engine) fn fail_lost(call: Call, worker: Worker, how: String) {
    let error = CallError::WorkerDied {
        method: call.method.to_owned(),
        worker,
        how,
        attempts: call.attempts,
        allowed: call.allowed,
        is_actor: call.actor,
    };
    call.answer(Err(error));
}

/// Creates the error for a worker that could not be started.
pub(in crate::engine) fn start_error(index: usize, reason: &str) -> CallError {
    StartError::Worker { index, reason: reason.to_owned() }.into()
}
