//! Whether the task or call that a worker runs is cancelled.
//!
//! Ray knows only on the thread that it has called. A call of an actor runs on that thread, and asks.
//! A task runs on another thread, so the thread that waits for it asks meanwhile. The calls of a bundle are one
//! call of an actor to Ray, so each of them looks into a list of the owner.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::engine::cancellation;
use crate::os::sync::Mutex;
use crate::ray::wire::cancelled::BundleId;

/// Interval at which the thread that waits for a task asks, and at which a bundle looks into the owner's list.
pub(super) const INTERVAL: Duration = Duration::from_millis(20);

/// The task that the serving thread runs.
static RUNNING: Mutex<Option<Task>> = Mutex::new(None);

/// The call of a bundle that this process runs.
static RUNNING_BUNDLED: Mutex<Option<(Arc<BundleList>, usize)>> = Mutex::new(None);

/// Whether a task is cancelled.
#[derive(Clone, Default)]
pub(super) struct Task(Arc<AtomicBool>);

/// Whether the call of a bundle that this process runs is cancelled. `None` if it runs none.
fn bundled_is_cancelled() -> Option<bool> {
    let running = RUNNING_BUNDLED.lock().clone();
    running.map(|(list, call)| list.contains(call))
}

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
    cancellation::install_for_thread(|| bundled_is_cancelled().unwrap_or_else(ask));
}

impl Task {
    /// Creates a task that is not cancelled.
    pub(super) fn new() -> Self {
        let is_cancelled = || RUNNING.lock().as_ref().is_some_and(Self::is_cancelled);
        cancellation::install_for_process(move || bundled_is_cancelled().unwrap_or_else(is_cancelled));
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

/// Which calls of a bundle are cancelled, as of the last look into the owner's list.
struct BundleList {
    bundle: BundleId,
    known: Mutex<Known>,
}

struct Known {
    cancelled: BTreeSet<usize>,
    looked: Instant,
}

impl BundleList {
    /// Returns `true` if a call is cancelled. Looks into the owner's list if the last look was an interval ago: a
    /// look is a question to another process, and takes as long as a small call.
    fn contains(&self, call: usize) -> bool {
        let is_due = {
            let mut known = self.known.lock();
            let is_due = known.looked.elapsed() >= INTERVAL && !known.cancelled.contains(&call);
            if is_due {
                known.looked = Instant::now();
            }
            is_due
        };
        if is_due {
            // An error is that of a process or a cluster that is about to end.
            let cancelled = Python::attach(|py| self.bundle.cancelled(py)).unwrap_or_default();
            self.known.lock().cancelled.extend(cancelled);
        }
        self.known.lock().cancelled.contains(&call)
    }
}

/// The cancelled calls of a bundle that this process runs.
pub(super) struct CancelledCalls(Arc<BundleList>);

impl CancelledCalls {
    /// `waited` is the time that the bundle may have waited for this process.
    pub(super) fn new(bundle: BundleId, waited: Duration) -> Self {
        let now = Instant::now();
        let looked = now.checked_sub(waited).unwrap_or(now);
        Self(Arc::new(BundleList { bundle, known: Mutex::new(Known { cancelled: BTreeSet::new(), looked }) }))
    }

    /// Records that this process runs a call, until the returned value is dropped. Returns `None` if the call is
    /// cancelled.
    pub(super) fn begin(&self, call: usize) -> Option<RunningBundled> {
        if self.0.contains(call) {
            return None;
        }
        *RUNNING_BUNDLED.lock() = Some((Arc::clone(&self.0), call));
        Some(RunningBundled)
    }
}

/// The call of a bundle that this process runs.
pub(super) struct RunningBundled;

impl Drop for RunningBundled {
    fn drop(&mut self) {
        *RUNNING_BUNDLED.lock() = None;
    }
}
