//! The scheduler of a pool, its lock, and the entry of calls.

use std::time::Instant;

use super::scheduler::{Admission, PoolWorker, Scheduler};
use super::worker_slot::ReadyWhen;
use crate::engine::call::Call;
use crate::engine::deadline::time_to_enter;
use crate::error::call::CallError;
use crate::os::sync::{Condvar, Mutex, MutexGuard};

/// Shared by the callers of a pool, its workers and its deadline thread.
pub(in crate::engine) struct CallQueue<W> {
    scheduler: Mutex<Scheduler<Call, W>>,
    /// Notified when the queue has space, a worker has started, or the pool closes.
    pub(in crate::engine) progress: Condvar,
    /// Notified when there is a deadline before the one for which the deadline thread sleeps, or
    /// the pool closes.
    pub(in crate::engine) timer: Condvar,
    /// Number of calls that may wait.
    capacity: usize,
}

impl<W: PoolWorker> CallQueue<W> {
    pub(in crate::engine) fn new(workers: usize, capacity: usize, ready_when: ReadyWhen) -> Self {
        let scheduler = Mutex::new(Scheduler::new(workers, ready_when));
        let (progress, timer) = Default::default();
        Self { scheduler, progress, timer, capacity }
    }

    pub(in crate::engine) fn lock(&self) -> MutexGuard<'_, Scheduler<Call, W>> {
        self.scheduler.lock()
    }

    /// Number of calls that may wait.
    pub(in crate::engine) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Records the deadline of a running call that had none when it was assigned: a batch.
    pub(in crate::engine) fn running_until(&self, index: usize, deadline: Instant) {
        let mut scheduler = self.scheduler.lock();
        scheduler.running_until(index, deadline);
        self.wake_timer(&scheduler, Some(deadline));
    }

    /// Returns the lock when the call may enter the queue. If the queue is full and `wait` is set,
    /// waits for space.
    ///
    /// # Errors
    /// Returns why the call may not enter.
    pub(in crate::engine) fn admit(
        &self,
        call: &Call,
        wait: bool,
    ) -> Result<MutexGuard<'_, Scheduler<Call, W>>, CallError> {
        let mut scheduler = self.scheduler.lock();
        loop {
            match scheduler.admission(call, self.capacity) {
                Admission::Accepted => return Ok(scheduler),
                Admission::ShutDown => return Err(CallError::ShutDown { method: call.method.to_owned() }),
                Admission::QueueFull if !wait => {
                    return Err(CallError::QueueFull { waiting: scheduler.queued(), workers: scheduler.workers() });
                }
                Admission::QueueFull => {
                    let left = time_to_enter(call.method, call.deadline)?;
                    scheduler.waiting_callers += 1;
                    scheduler = self.progress.wait(scheduler, left);
                    scheduler.waiting_callers -= 1;
                }
            }
        }
    }

    /// Wakes the deadline thread if it would sleep longer than until `deadline`.
    pub(in crate::engine) fn wake_timer(&self, scheduler: &Scheduler<Call, W>, deadline: Option<Instant>) {
        if deadline.is_some_and(|deadline| scheduler.is_before_timer(deadline)) {
            self.timer.notify_one();
        }
    }
}
