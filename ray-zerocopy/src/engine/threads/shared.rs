//! State that the threads of a pool and its callers share.

use std::sync::Arc;
use std::time::Duration;

use super::mailbox::Mailbox;
use crate::engine::call::Call;
use crate::engine::program::{Attached, Program};
use crate::engine::queue::call_queue::CallQueue;
use crate::engine::queue::job::QueuedCall;
use crate::engine::queue::scheduler::Assignment;
use crate::engine::spin::SpinningPolls;
use crate::engine::worker_nodes::WorkerNodes;
use crate::error::call::StartError;
use crate::os::available_memory;
use crate::os::sync::{Mutex, now};

/// Memory of a thread without its copies of weights.
const STACK: u64 = 4 << 20;
/// Pause between two attempts to start the only thread.
const BACK_OFF: Duration = Duration::from_millis(300);

/// State shared by the threads of a pool and its callers.
pub(super) struct Shared {
    pub(super) queue: CallQueue<Mailbox>,
    pub(super) nodes: WorkerNodes,
    /// Whether polls of calls spin.
    pub(super) polls: SpinningPolls,
    /// The program that every thread loads when it starts: the pipeline of an actor.
    pub(super) program: Option<Mutex<Arc<Program>>>,
    /// Bytes of memory that stay available when the pool grows.
    pub(super) memory_reserve: u64,
    /// The most bytes of weights that a thread has copied. Held while the memory for a thread is checked:
    /// two threads must not count on the same.
    pub(super) largest: Mutex<u64>,
}

impl Shared {
    /// The program that every thread loads when it starts.
    pub(super) fn program(&self) -> Option<Arc<Program>> {
        self.program.as_ref().map(|program| Arc::clone(&program.lock()))
    }

    /// Replaces the program that every thread loads when it starts, if there is one.
    pub(super) fn set_program(&self, next: &Arc<Program>) {
        if let Some(program) = &self.program {
            let before = std::mem::replace(&mut *program.lock(), Arc::clone(next));
            // Without the lock: it may be the last handle.
            drop(before);
        }
    }

    /// Wakes callers that wait for space in the queue, if an assignment has made some.
    pub(super) fn wake_callers(&self, assignment: &Assignment<Call, Mailbox>) {
        if assignment.wakes_callers {
            self.queue.progress.notify_all();
        }
    }

    pub(super) fn send(&self, assignment: Assignment<Call, Mailbox>) {
        self.wake_callers(&assignment);
        assignment.conn.put(assignment.job);
    }

    /// Checks that there is memory for another thread, beside those that are about to start: for the
    /// weights that a thread copies, as the largest one so far, and its stack. The error is the reason why
    /// there is not.
    pub(super) fn check_memory(&self, index: usize) -> Result<(), String> {
        let mut largest = self.largest.lock();
        let expected = {
            let scheduler = self.queue.lock();
            let bytes = |report: &Attached| report.copied.iter().map(|copied| copied.bytes).sum::<u64>();
            let copied = scheduler.all_reports().map(|reports| reports.map(bytes).sum::<u64>()).max();
            *largest = copied.unwrap_or_default().max(*largest);
            scheduler.expected() as u64
        };
        available_memory::check(largest.saturating_add(STACK), expected, self.memory_reserve)?;
        self.queue.lock().expect_worker(index);
        Ok(())
    }

    /// Handles that there is no memory for an additional thread. If there is no other one, the next call
    /// loses an attempt.
    pub(super) fn growth_failed(&self, index: usize, reason: &str) {
        if self.queue.growth_failed(index, reason) {
            return;
        }
        let mut scheduler = self.queue.lock();
        if let Some(call) = scheduler.charge_failed_start(index, now(), BACK_OFF) {
            let requeued = if call.has_attempts_left() { scheduler.requeue(call) } else { Err(call) };
            drop(scheduler);
            match requeued {
                Ok(next) => {
                    self.queue.wake_supervisors(&next);
                    if let Some(assignment) = next.assignment {
                        self.send(assignment);
                    }
                }
                Err(call) => {
                    let error = StartError::call(call.method, reason);
                    call.answer(Err(error.into()));
                }
            }
            scheduler = self.queue.lock();
        }
        // A pool that closes still runs what is queued.
        if scheduler.is_open() || (!scheduler.is_aborting() && scheduler.queued() > 0) {
            drop(self.queue.wanted.wait(scheduler, Some(BACK_OFF)));
        }
    }

    /// Assigns jobs to idle threads until none is left.
    pub(super) fn assign_all(&self) {
        loop {
            let assignment = self.queue.lock().assign();
            let Some(assignment) = assignment else { return };
            self.send(assignment);
        }
    }
}
