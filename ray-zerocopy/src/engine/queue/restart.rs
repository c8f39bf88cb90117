//! Rolling restart: replaces the process of a worker without a failed call.
//!
//! The worker ends when it is free, before its next call. Calls that only this worker may run wait for
//! its next process.

use super::job::QueuedCall;
use super::scheduler::{PoolWorker, Scheduler};
use super::worker_slot::Process;
use crate::error::call::CallError;

/// Progress of the restart of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum Restart {
    Pending,
    /// The new process is ready, or the worker is not needed any more.
    Done,
    /// The new process could not be started, or could not load the pipeline.
    Failed(CallError),
    /// The pool has been closed.
    Closed,
}

/// The error of an operation on a thread of the pool, which would wait for itself.
pub(in crate::engine) fn on_own_thread(operation: &str) -> CallError {
    let reason = "it waits for the worker that this thread belongs to; call it on a thread of yours".to_owned();
    CallError::Unsupported { operation: operation.to_owned(), reason }
}

impl<C: QueuedCall, W: PoolWorker> Scheduler<C, W> {
    /// Makes a worker end when it is free. Returns `false` if it has no process that could be replaced:
    /// one that is about to start is a new one.
    pub(in crate::engine) fn begin_restart(&mut self, index: usize) -> bool {
        let is_open = self.is_open();
        let slot = &mut self.slots[index];
        let restarts = is_open && matches!(slot.process, Process::Up(_)) && !slot.is_ending;
        if restarts {
            slot.has_to_end = true;
            slot.is_restarting = true;
            slot.start_error = None;
        }
        restarts
    }

    /// Progress of the restart of a worker that [`begin_restart`](Self::begin_restart) has begun.
    pub(in crate::engine) fn restart(&mut self, index: usize) -> Restart {
        if !self.is_open() {
            return Restart::Closed;
        }
        let slot = &mut self.slots[index];
        if let Some(error) = slot.start_error.take() {
            slot.is_restarting = false;
            return Restart::Failed(error);
        }
        match slot.process {
            Process::Retired => Restart::Closed,
            Process::Dormant => {
                slot.is_restarting = false;
                Restart::Done
            }
            Process::Up(_) if !slot.is_restarting => Restart::Done,
            Process::Up(_) | Process::Down => Restart::Pending,
        }
    }
}
