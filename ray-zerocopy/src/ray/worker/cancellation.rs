//! Whether Ray has cancelled the task or call that a worker runs.
//!
//! Ray knows only on the thread that it has called. A call of an actor runs on that thread, and asks.
//! A task runs on another thread, so the thread that waits for it asks meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::engine::cancellation;

/// Interval at which the thread that waits for a task asks.
pub(super) const INTERVAL: Duration = Duration::from_millis(20);

static IS_TASK_CANCELLED: AtomicBool = AtomicBool::new(false);

/// Asks Ray, on the thread that it has called.
fn ask() -> bool {
    let ask = |py: Python<'_>| -> PyResult<bool> {
        py.import("ray")?.call_method0("get_runtime_context")?.call_method0("is_canceled")?.extract()
    };
    // An error is the `KeyboardInterrupt` with which Ray cancels a task, or that of a process that is
    // about to end.
    Python::attach(|py| ask(py).unwrap_or(true))
}

/// Prepares this thread, on which Ray calls an actor.
pub(super) fn ask_on_this_thread() {
    cancellation::install_for_thread(ask);
}

/// Prepares for a task.
pub(super) fn begin() {
    cancellation::install_for_process(is_task_cancelled);
    IS_TASK_CANCELLED.store(false, Ordering::Release);
}

/// Returns `true` if Ray has said that the task is cancelled.
pub(super) fn is_task_cancelled() -> bool {
    IS_TASK_CANCELLED.load(Ordering::Acquire)
}

/// Asks Ray whether the task is cancelled. Called on the thread that Ray has called.
pub(super) fn ask_for_task() {
    if !is_task_cancelled() && ask() {
        IS_TASK_CANCELLED.store(true, Ordering::Release);
    }
}

/// Waits for the result of a task that runs on another thread.
pub(super) fn wait<R>(result: &Receiver<R>) -> Result<R, RecvError> {
    begin();
    loop {
        match result.recv_timeout(INTERVAL) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
            Err(RecvTimeoutError::Timeout) => ask_for_task(),
        }
    }
}
