//! Whether Ray has cancelled the task or call that a worker runs.
//!
//! Ray knows only on the thread that it has called. A call of an actor runs on that thread, and asks.
//! A task runs on another thread, so the thread that waits for it asks meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::engine::cancellation;
use crate::os::sync::Mutex;

/// Interval at which the thread that waits for a task asks.
pub(super) const INTERVAL: Duration = Duration::from_millis(20);

/// The task that the serving thread runs.
static RUNNING: Mutex<Option<Task>> = Mutex::new(None);

/// Whether a task is cancelled.
#[derive(Clone, Default)]
pub(super) struct Task(Arc<AtomicBool>);

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

impl Task {
    /// Creates a task that is not cancelled.
    pub(super) fn new() -> Self {
        cancellation::install_for_process(|| RUNNING.lock().as_ref().is_some_and(Self::is_cancelled));
        Self::default()
    }

    /// Records that the serving thread runs this task from now on.
    pub(super) fn begin(&self) {
        *RUNNING.lock() = Some(self.clone());
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    pub(super) fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Asks Ray whether it is cancelled. Called on the thread that Ray has called.
    pub(super) fn ask(&self) {
        if !self.is_cancelled() && ask() {
            self.cancel();
        }
    }

    /// Waits for the result of this task, which runs on another thread.
    pub(super) fn wait<R>(&self, result: &Receiver<R>) -> Result<R, RecvError> {
        loop {
            match result.recv_timeout(INTERVAL) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                Err(RecvTimeoutError::Timeout) => self.ask(),
            }
        }
    }
}
