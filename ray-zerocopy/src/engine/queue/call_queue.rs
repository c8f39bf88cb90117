//! The scheduler of a pool, its lock, and the entry of calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::elastic::{GROWTH_DELAY, Wanted};
use super::job::QueuedCall;
use super::restart::Restart;
use super::scheduler::{Admission, Next, PoolWorker, Scheduler};
use super::worker_slot::ReadyWhen;
use crate::engine::call::Call;
use crate::engine::deadline::time_to_enter;
use crate::engine::figures::workers;
use crate::engine::settings::Settings;
use crate::error::call::CallError;
use crate::os::sync::{Condvar, Mutex, MutexGuard, now};

/// The error of a restart of a pool that has been closed.
fn restart_of_closed() -> CallError {
    CallError::ShutDown { method: "restart".to_owned() }
}

/// Shared by the callers of a pool, its workers and its deadline thread.
pub(in crate::engine) struct CallQueue<W> {
    scheduler: Mutex<Scheduler<Call, W>>,
    /// Notified when the queue has space, a worker has started, or the pool closes.
    pub(in crate::engine) progress: Condvar,
    /// Notified when there is a deadline before the one for which the deadline thread sleeps, or
    /// the pool closes.
    pub(in crate::engine) timer: Condvar,
    /// Notified when a dormant worker is wanted, or the pool closes.
    pub(in crate::engine) wanted: Condvar,
    /// Number of calls that may wait.
    capacity: usize,
    /// Name of the engine in metrics.
    engine: &'static str,
}

impl<W: PoolWorker> CallQueue<W> {
    pub(in crate::engine) fn new(settings: &Settings, ready_when: ReadyWhen, engine: &'static str) -> Self {
        let scheduler = Mutex::new(Scheduler::new(settings.workers, settings.idle, ready_when));
        let (progress, timer, wanted) = Default::default();
        Self { scheduler, progress, timer, wanted, capacity: settings.queue, engine }
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

    /// Waits while a worker is dormant. Returns whether it is an additional one when it has to start, or
    /// `None` if it has retired.
    pub(in crate::engine) fn wait_until_wanted(&self, index: usize) -> Option<bool> {
        let mut scheduler = self.scheduler.lock();
        // When it looks a second time.
        let mut looks_at = None;
        loop {
            if scheduler.retire(index) {
                self.progress.notify_all();
                return None;
            }
            match scheduler.wanted(index) {
                Wanted::Start { is_additional } => {
                    let at = *looks_at.get_or_insert_with(|| now() + GROWTH_DELAY);
                    let left = at.saturating_duration_since(now());
                    if !is_additional || scheduler.is_last() || left.is_zero() {
                        return Some(is_additional);
                    }
                    scheduler = self.wanted.wait(scheduler, Some(left));
                }
                Wanted::Rest => {
                    looks_at = None;
                    self.progress.notify_all();
                    scheduler = self.wanted.wait(scheduler, None);
                }
            }
        }
    }

    /// Replaces the process of each worker, one after the other. `assign_all` sends jobs to idle workers.
    ///
    /// # Errors
    /// The first failure of a new process. The workers after it keep their processes.
    pub(in crate::engine) fn restart(&self, assign_all: impl Fn()) -> Result<(), CallError> {
        let workers = self.scheduler.lock().workers();
        for index in 0..workers {
            let has_begun = self.scheduler.lock().begin_restart(index);
            if has_begun {
                assign_all();
                self.wait_for_restart(index)?;
            }
        }
        if self.scheduler.lock().is_open() { Ok(()) } else { Err(restart_of_closed()) }
    }

    fn wait_for_restart(&self, index: usize) -> Result<(), CallError> {
        let mut scheduler = self.scheduler.lock();
        loop {
            match scheduler.restart(index) {
                Restart::Done => return Ok(()),
                Restart::Failed(error) => return Err(error),
                Restart::Closed => return Err(restart_of_closed()),
                Restart::Pending => scheduler = self.progress.wait(scheduler, None),
            }
        }
    }

    /// Waits until all workers have ended, and not longer than `timeout`. Returns the number of calls
    /// that are left. A batch counts as one.
    pub(in crate::engine) fn wait_until_over(&self, timeout: Duration) -> usize {
        let until = now().checked_add(timeout);
        let mut scheduler = self.scheduler.lock();
        while !scheduler.is_over() {
            let left = until.map(|until| until.saturating_duration_since(now()));
            if left == Some(Duration::ZERO) {
                return scheduler.unanswered();
            }
            scheduler = self.progress.wait(scheduler, left);
        }
        0
    }

    /// Notifies the supervisors of workers that a change of the queue has woken.
    pub(in crate::engine) fn wake_supervisors<C: QueuedCall>(&self, next: &Next<C, W>) {
        if next.wakes_supervisors {
            self.wanted.notify_all();
        }
    }

    /// Records the start of a worker's process, or why it failed.
    pub(in crate::engine) fn process_started(&self, index: usize, result: Result<Arc<W>, CallError>) {
        let has_started = result.is_ok();
        let (is_elastic, is_restart) = {
            let mut scheduler = self.scheduler.lock();
            let is_restart = scheduler.process_started(index, result);
            (scheduler.is_elastic(), is_restart)
        };
        if has_started {
            workers::started(self.engine, is_restart);
        }
        self.progress.notify_all();
        if is_elastic {
            // The deadline thread ends the worker when it has been idle for long enough.
            self.timer.notify_one();
        }
    }

    /// Records that a worker's process has ended. Returns its connections, which must be dropped after the
    /// lock is released.
    pub(in crate::engine) fn process_ended(&self, index: usize) -> [Option<Arc<W>>; 2] {
        let (connections, is_expected) = {
            let mut scheduler = self.scheduler.lock();
            let is_expected = scheduler.is_end_expected(index);
            (scheduler.process_ended(index), is_expected)
        };
        if connections[0].is_some() {
            workers::ended(self.engine, is_expected);
        }
        connections
    }

    /// Records that an additional worker could not be started. Returns `false` if no other worker has a
    /// process.
    pub(in crate::engine) fn growth_failed(&self, index: usize, reason: &str) -> bool {
        let is_dormant = self.scheduler.lock().growth_failed(index, reason, now());
        // The deadline thread grows the pool after a pause, if calls still wait.
        self.timer.notify_one();
        is_dormant
    }

    /// Wakes the deadline thread if it would sleep longer than until `deadline`.
    pub(in crate::engine) fn wake_timer(&self, scheduler: &Scheduler<Call, W>, deadline: Option<Instant>) {
        if deadline.is_some_and(|deadline| scheduler.is_before_timer(deadline)) {
            self.timer.notify_one();
        }
    }
}
