//! The scheduler: the queue of calls, the list of idle workers, and the assignment of calls to
//! workers. Plain data under one lock.
//!
//! The scheduler only decides which job a worker runs next. Its methods return assignments, which
//! the caller sends after it has released the lock. Invariant while the lock is free: no worker is
//! idle while a job that it could run is queued. So a method that adds a job or frees a worker also
//! returns the resulting assignment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::elastic::Elastic;
use super::job::{Job, QueuedCall};
use super::worker_slot::{FirstStart, Process, ReadyWhen, WorkerSlot};
use crate::engine::pool_size::PoolSize;
use crate::engine::program::Attached;
use crate::error::call::CallError;
use crate::os::sync::now;

/// A worker, as the queue sees it.
pub(in crate::engine) trait PoolWorker {
    /// The worker's index in the pool.
    fn index(&self) -> usize;

    /// Ends the running call, because its deadline has passed. Called without the queue's lock.
    fn expire(&self);

    /// Whether it can be sent several calls at once.
    const TAKES_BUNDLES: bool = false;

    /// Number of calls that it has, if it is busy.
    fn calls(&self) -> usize {
        1
    }
}

/// A job, and the worker that runs it, which was idle or has just become free. The holder of an
/// assignment is the only thread that sends to this worker.
pub(in crate::engine) struct Assignment<C: QueuedCall, W> {
    pub(in crate::engine) conn: Arc<W>,
    pub(in crate::engine) job: Job<C>,
    /// Whether callers wait for the space in the queue that this has freed.
    pub(in crate::engine) wakes_callers: bool,
}

/// Actions that follow from a change of the queue.
pub(in crate::engine) struct Next<C: QueuedCall, W> {
    /// A job to send.
    pub(in crate::engine) assignment: Option<Assignment<C, W>>,
    /// A connection whose reply no thread reads. Its supervisor has to read it now, because another
    /// call may need the worker.
    pub(in crate::engine) unread: Option<Arc<W>>,
    /// Whether supervisors of dormant workers have to be notified.
    pub(in crate::engine) wakes_supervisors: bool,
}

/// Result of the admission check of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Admission {
    Accepted,
    QueueFull,
    ShutDown,
}

/// Progress of the first start of all workers.
pub(in crate::engine) enum Startup<'a, W> {
    Ready,
    Failed(CallError),
    /// This worker is not ready yet. Its process may have started.
    Pending(usize, Option<&'a Arc<W>>),
}

/// Lifecycle of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lifecycle {
    Open,
    /// Queued calls still run, and new ones are rejected.
    Draining,
    /// The processes are being killed, and no call runs any more.
    Aborting,
}

/// The state of a pool, of calls `C` and connections `W`.
pub(in crate::engine) struct Scheduler<C, W> {
    lifecycle: Lifecycle,
    ready_when: ReadyWhen,
    /// Calls that any worker may run.
    pub(super) queue: VecDeque<C>,
    pub(super) slots: Vec<WorkerSlot<C, W>>,
    /// Workers without a job. The last to become idle is the first to get one, because its memory
    /// is in the CPU's caches.
    pub(super) idle: Vec<usize>,
    /// The connection whose reply no thread reads yet, because its caller may do that: see
    /// `local/inline_wait`.
    unread: Option<Arc<W>>,
    /// Number of calls that were cancelled since cancelled calls were last taken from the queue.
    pub(super) cancelled: usize,
    /// Number of callers that wait for space in the queue.
    pub(in crate::engine) waiting_callers: usize,
    /// Time until which the deadline thread sleeps.
    pub(in crate::engine) timer_wakes_at: Option<Instant>,
    /// Time when a call of the shared queue last lost an attempt because no process could be
    /// started.
    last_failed_start: Option<Instant>,
    pub(super) elastic: Elastic,
}

impl<C: QueuedCall, W: PoolWorker> Scheduler<C, W> {
    pub(in crate::engine) fn new(size: PoolSize, idle: Duration, ready_when: ReadyWhen) -> Self {
        let slot = |index| if index < size.min { WorkerSlot::new() } else { WorkerSlot::dormant() };
        Self {
            lifecycle: Lifecycle::Open,
            ready_when,
            queue: VecDeque::new(),
            slots: (0..size.max).map(slot).collect(),
            idle: Vec::new(),
            unread: None,
            cancelled: 0,
            waiting_callers: 0,
            timer_wakes_at: None,
            last_failed_start: None,
            elastic: Elastic::new(size, idle),
        }
    }

    /// Number of calls in the queues.
    pub(in crate::engine) fn queued(&self) -> usize {
        self.queue.len() + self.slots.iter().map(|slot| slot.pinned.len()).sum::<usize>()
    }

    pub(in crate::engine) fn workers(&self) -> usize {
        self.slots.len()
    }

    /// Returns the connections to the running processes.
    pub(in crate::engine) fn connections(&self) -> impl Iterator<Item = &Arc<W>> {
        self.slots.iter().filter_map(|slot| slot.process.conn())
    }

    /// Returns the workers that have a process, or whose supervisor starts one.
    pub(in crate::engine) fn live_workers(&self) -> Vec<usize> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| slot.is_live().then_some(index)).collect()
    }

    /// Returns the processes that have loaded a program, and their reports.
    pub(in crate::engine) fn reports(&self, key: u64) -> impl Iterator<Item = (&Arc<W>, &Attached)> {
        self.slots.iter().filter_map(move |slot| Some((slot.process.conn()?, slot.loaded.get(&key)?)))
    }

    /// Returns the reports of each worker on the programs that it has loaded.
    pub(in crate::engine) fn all_reports(&self) -> impl Iterator<Item = impl Iterator<Item = &Attached>> {
        self.slots.iter().map(|slot| slot.loaded.values())
    }

    pub(in crate::engine) fn is_open(&self) -> bool {
        self.lifecycle == Lifecycle::Open
    }

    pub(in crate::engine) fn is_aborting(&self) -> bool {
        self.lifecycle == Lifecycle::Aborting
    }

    /// Rejects new calls from now on.
    pub(in crate::engine) fn drain(&mut self) {
        self.lifecycle = self.lifecycle.max(Lifecycle::Draining);
    }

    /// Aborts the pool. Returns the queued calls, and the connections to all processes.
    pub(in crate::engine) fn abort(&mut self) -> (Vec<C>, Vec<Arc<W>>) {
        self.lifecycle = Lifecycle::Aborting;
        let calls = self.queues().flat_map(std::mem::take).collect();
        (calls, self.connections().cloned().collect())
    }

    /// Checks whether a call may enter the queue, which takes `limit` calls. A call that would be
    /// assigned immediately does not need space.
    pub(in crate::engine) fn admission(&self, call: &C, limit: usize) -> Admission {
        if !self.is_open() && !self.is_still_run(call) {
            Admission::ShutDown
        } else if call.is_admitted()
            || self.has_idle_worker_for(call)
            || self.queued().saturating_sub(self.cancelled) < limit
        {
            Admission::Accepted
        } else {
            Admission::QueueFull
        }
    }

    /// Returns `true` if a pool that closes still runs the call: it was admitted before, and there is a
    /// worker that has not been told to end.
    fn is_still_run(&self, call: &C) -> bool {
        let runs = |slot: &WorkerSlot<C, W>| slot.process.conn().is_some() && !slot.is_ending;
        let has_worker =
            || self.pin(call).map_or_else(|| self.slots.iter().any(runs), |index| runs(&self.slots[index]));
        self.lifecycle == Lifecycle::Draining && call.is_admitted() && has_worker()
    }

    fn has_idle_worker_for(&self, call: &C) -> bool {
        self.pin(call).map_or(!self.idle.is_empty(), |index| self.idle.contains(&index))
    }

    fn pin(&self, call: &C) -> Option<usize> {
        call.pinned_to().filter(|&index| index < self.slots.len())
    }

    fn queue_of(&mut self, call: &C) -> &mut VecDeque<C> {
        match self.pin(call) {
            Some(index) => &mut self.slots[index].pinned,
            None => &mut self.queue,
        }
    }

    /// Adds a call. If it is assigned immediately, no thread reads its reply yet.
    pub(in crate::engine) fn submit(&mut self, call: C) -> Next<C, W> {
        if self.queue.is_empty() && self.is_elastic() {
            // Those that were cancelled have left the queue.
            self.cancelled = 0;
        }
        self.queue_of(&call).push_back(call);
        let assignment = self.assign();
        let conn = assignment.as_ref().map(|assignment| Arc::clone(&assignment.conn));
        // The supervisor has to read an earlier unread reply, since its call is not the only one
        // any more.
        let unread = std::mem::replace(&mut self.unread, conn);
        Next { assignment, unread, wakes_supervisors: self.wake() }
    }

    /// Requeues a call at the front of the queue from which it was assigned.
    ///
    /// # Errors
    /// Returns the call if no supervisor is left that could run it.
    pub(in crate::engine) fn requeue(&mut self, call: C) -> Result<Next<C, W>, C> {
        self.put_back_one(call)?;
        let assignment = self.assign();
        Ok(Next { assignment, unread: self.unread.take(), wakes_supervisors: self.wake() })
    }

    /// Puts a call back to the front of its queue.
    pub(super) fn put_back_one(&mut self, mut call: C) -> Result<(), C> {
        let is_stranded = self.pin(&call).map_or_else(|| self.is_over(), |index| self.slots[index].is_retired());
        if self.is_aborting() || is_stranded {
            return Err(call);
        }
        call.requeued();
        self.queue_of(&call).push_front(call);
        Ok(())
    }

    /// Takes the connection whose reply no thread reads.
    pub(in crate::engine) fn take_unread(&mut self) -> Option<Arc<W>> {
        self.unread.take()
    }

    /// Makes every process free a program that it has loaded.
    pub(in crate::engine) fn forget(&mut self, key: u64) {
        for slot in &mut self.slots {
            if slot.loaded.remove(&key).is_some() {
                slot.forget.push(key);
            }
        }
    }

    /// Assigns a job to an idle worker.
    pub(in crate::engine) fn assign(&mut self) -> Option<Assignment<C, W>> {
        let is_draining = !self.is_open();
        let has_own_job = |&index: &usize| {
            let slot = &self.slots[index];
            is_draining || slot.has_to_end || !slot.forget.is_empty() || !slot.pinned.is_empty()
        };
        let at = self.idle.iter().rposition(has_own_job).or_else(|| {
            let key = self.queue.front()?.program_key();
            // Workers that have loaded the program are preferred.
            let warm = self.idle.iter().rposition(|&index| self.slots[index].loaded.contains_key(&key));
            warm.or(self.idle.len().checked_sub(1))
        })?;
        let index = self.idle.remove(at);
        let conn = self.slots[index].process.conn().cloned()?;
        self.next_job(&conn)
    }

    /// Assigns the next job to a free worker. Without a job it becomes idle.
    pub(in crate::engine) fn next_job(&mut self, conn: &Arc<W>) -> Option<Assignment<C, W>> {
        let index = conn.index();
        let slot = &mut self.slots[index];
        // A process that has ended gets no job. Its supervisor starts another one.
        let conn = slot.process.conn().filter(|current| Arc::ptr_eq(current, conn)).cloned()?;
        slot.deadline = None;
        // Its reply has been read.
        self.unread.take_if(|unread| Arc::ptr_eq(unread, &conn));
        let job = if let Some(key) = slot.forget.pop() {
            Job::Forget(key)
        } else if std::mem::take(&mut slot.has_to_end) {
            slot.is_ending = true;
            Job::ShutDown
        } else if let Some(calls) = self.next_calls(index) {
            calls
        } else if self.lifecycle != Lifecycle::Open {
            self.slots[index].is_ending = true;
            Job::ShutDown
        } else {
            self.stops_working(index);
            self.slots[index].idle_since = self.elastic.size.is_elastic().then(now);
            self.idle.push(index);
            return None;
        };
        Some(Assignment { conn, job, wakes_callers: self.waiting_callers > 0 })
    }

    /// Returns `true` if a worker is waited for: the pool is closing, or the worker is being replaced. Then
    /// a stream that it runs must not wait for its reader, which may be the one who waits.
    pub(in crate::engine) fn is_awaited(&self, index: usize) -> bool {
        !self.is_open() || self.slots[index].has_to_end
    }

    /// Records the deadline of the call that a worker runs.
    pub(in crate::engine) fn running_until(&mut self, index: usize, deadline: Instant) {
        self.slots[index].deadline = Some(deadline);
    }

    /// Records the start of a worker's process, or why it failed. Returns `true` if the process replaces
    /// another one.
    pub(in crate::engine) fn process_started(&mut self, index: usize, result: Result<Arc<W>, CallError>) -> bool {
        let mut is_restart = false;
        if result.is_ok() {
            let slot = &mut self.slots[index];
            is_restart = std::mem::replace(&mut slot.has_run, true) && !slot.is_woken;
            self.count_growth(index);
        }
        self.slots[index].process_started(result, self.ready_when);
        is_restart
    }

    /// Returns `true` if a worker ends because it was told to.
    pub(super) fn is_end_expected(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        slot.is_ending || slot.has_to_end || self.is_aborting()
    }

    /// Records that a worker has loaded a program, or why it could not. Returns `true` if that
    /// completes its first start, or the replacement of its process.
    pub(in crate::engine) fn load_finished(
        &mut self,
        index: usize,
        key: u64,
        result: Result<Attached, CallError>,
    ) -> bool {
        let slot = &mut self.slots[index];
        let result = result.map(|report| drop(slot.loaded.insert(key, report)));
        // A process that has to end before that is still the old one.
        let is_restarting = slot.is_restarting && !slot.has_to_end && self.ready_when == ReadyWhen::ProgramLoaded;
        if is_restarting {
            slot.restarted(result.as_ref().err());
        }
        slot.first_start.finish(result) || is_restarting
    }

    /// Records that a worker's process has ended. Returns its connections, which must be dropped
    /// after the lock is released.
    pub(in crate::engine) fn process_ended(&mut self, index: usize) -> [Option<Arc<W>>; 2] {
        self.idle.retain(|&idle| idle != index);
        let conn = self.slots[index].process_ended();
        [conn, self.unread.take_if(|unread| unread.index() == index)]
    }

    /// Progress of the first start of the pool.
    pub(in crate::engine) fn startup(&self) -> Startup<'_, W> {
        let failed = self.slots.iter().find_map(|slot| match &slot.first_start {
            FirstStart::Finished(Err(error)) => Some(error.clone()),
            FirstStart::Pending | FirstStart::Finished(Ok(())) => None,
        });
        if let Some(error) = failed {
            return Startup::Failed(error);
        }
        let pending = self.slots.iter().position(|slot| matches!(slot.first_start, FirstStart::Pending));
        pending.map_or(Startup::Ready, |index| Startup::Pending(index, self.slots[index].process.conn()))
    }

    /// Retires a supervisor without a process, if the pool closes and no queued call needs its
    /// worker. Returns `true` if the supervisor has to exit.
    pub(in crate::engine) fn retire(&mut self, index: usize) -> bool {
        let has_live = self.queue.is_empty() || self.live() > 0;
        let slot = &mut self.slots[index];
        let is_done = match self.lifecycle {
            Lifecycle::Open => false,
            // The workers that are not dormant run what is left.
            Lifecycle::Draining if matches!(slot.process, Process::Dormant) => slot.pinned.is_empty() && has_live,
            Lifecycle::Draining => self.queue.is_empty() && slot.pinned.is_empty(),
            Lifecycle::Aborting => true,
        };
        let retires = is_done && !slot.is_retired();
        if retires {
            slot.process = Process::Retired;
        }
        retires
    }

    /// Retires the supervisors from `first` on, which could not be started, and closes the pool.
    pub(in crate::engine) fn supervisors_missing(&mut self, first: usize) {
        for slot in &mut self.slots[first..] {
            slot.process = Process::Retired;
        }
        self.drain();
    }

    /// Returns `true` if all supervisors have exited.
    pub(in crate::engine) fn is_over(&self) -> bool {
        self.slots.iter().all(WorkerSlot::is_retired)
    }

    /// Takes a call that loses an attempt because the process of a worker could not be started: one
    /// that is pinned to this worker, or the next one of the shared queue if no worker has a
    /// process.
    ///
    /// The workers of a pool usually fail together, so a call of the shared queue loses one attempt
    /// per `round`, not one per worker.
    pub(in crate::engine) fn charge_failed_start(&mut self, index: usize, now: Instant, round: Duration) -> Option<C> {
        let charged = |mut call: C| {
            *call.attempts().made += 1;
            call
        };
        if let Some(call) = self.slots[index].pinned.pop_front() {
            return Some(charged(call));
        }
        let is_same_round = self.last_failed_start.is_some_and(|last| now.saturating_duration_since(last) < round);
        if self.connections().next().is_some() || is_same_round {
            return None;
        }
        let call = self.queue.pop_front()?;
        self.last_failed_start = Some(now);
        Some(charged(call))
    }

    fn queues(&mut self) -> impl Iterator<Item = &mut VecDeque<C>> {
        std::iter::once(&mut self.queue).chain(self.slots.iter_mut().map(|slot| &mut slot.pinned))
    }

    /// Takes the queued calls whose deadline has passed.
    pub(in crate::engine) fn take_expired(&mut self, now: Instant) -> Vec<C> {
        self.take_if(|call| call.is_expired(now))
    }

    fn take_if(&mut self, is_taken: impl Fn(&C) -> bool) -> Vec<C> {
        let mut taken = Vec::new();
        for queue in self.queues() {
            if queue.iter().any(&is_taken) {
                let (found, left) = std::mem::take(queue).into_iter().partition::<VecDeque<_>, _>(&is_taken);
                *queue = left;
                taken.extend(found);
            }
        }
        taken
    }

    /// Records that a call has been cancelled, and takes cancelled calls from the queue if there may
    /// be many: a cancelled call that stays does not run either. So cancelling each of many calls does
    /// not search the whole queue each time.
    pub(in crate::engine) fn take_cancelled(&mut self) -> Vec<C> {
        self.cancelled += 1;
        if self.waiting_callers == 0 && 2 * self.cancelled < self.queued() {
            return Vec::new();
        }
        self.cancelled = 0;
        self.take_if(QueuedCall::is_cancelled)
    }

    /// Returns the workers that run a call whose deadline has passed, each once per call.
    pub(in crate::engine) fn take_overdue(&mut self, now: Instant) -> Vec<Arc<W>> {
        self.slots.iter_mut().filter_map(|slot| slot.take_overdue(now)).collect()
    }

    /// Returns the next deadline of a queued or running call.
    pub(in crate::engine) fn next_deadline(&mut self) -> Option<Instant> {
        let running = self.slots.iter().filter_map(|slot| slot.deadline).min();
        let queued = self.queues().flat_map(|queue| queue.iter()).filter_map(QueuedCall::deadline);
        queued.chain(running).min()
    }

    /// Returns `true` if the deadline thread would sleep beyond this deadline, and has to be woken.
    pub(in crate::engine) fn is_before_timer(&self, deadline: Instant) -> bool {
        self.timer_wakes_at.is_none_or(|wakes_at| deadline < wakes_at)
    }
}
