//! What a pool knows: the calls that wait, and which workers have nothing to do. Plain data under one lock.
//!
//! It decides who does what next, and sends nothing. One rule holds whenever the lock is free for long: no worker is idle
//! while there is something that it could do. Whoever adds work or frees a worker claims what follows from it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::worker_conn::{Job, WorkerConn};
use crate::engine::call::Call;
use crate::engine::program::Attached;
use crate::error::call::CallError;

/// A worker that was idle or has just become free, and what it has to do. Whoever has it is the only one to send.
pub(super) struct Assignment {
    pub(super) link: Arc<WorkerConn>,
    pub(super) job: Job,
    /// A place in the queue is free, and callers wait for one.
    pub(super) room: bool,
}

#[derive(Default)]
pub(super) struct Scheduler {
    /// Calls for whoever is free.
    queue: VecDeque<Call>,
    pub(super) seats: Vec<WorkerSlot>,
    /// Workers with nothing to do. The last to become idle is the first to get work: its memory is in the caches.
    idle: Vec<usize>,
    pub(super) closing: bool,
    /// The workers are being killed, and no call runs any more.
    pub(super) aborting: bool,
    /// How many drivers have not ended.
    drivers: usize,
    /// The worker whose answer nobody receives yet, because its caller may come and do that: see `lone`.
    pub(super) lone: Option<Arc<WorkerConn>>,
    /// How many callers wait for a place in the queue.
    pub(super) callers: usize,
    /// When the keeper of deadlines wakes by itself.
    pub(super) keeper: Option<Instant>,
    /// When a call last lost an attempt because no process could be started.
    last_failed_start: Option<Instant>,
}

/// What is known of one worker.
#[derive(Default)]
pub(super) struct WorkerSlot {
    /// Calls for this worker alone.
    pinned: VecDeque<Call>,
    forget: Vec<u64>,
    /// There is a process, and this is the way to it.
    pub(super) link: Option<Arc<WorkerConn>>,
    /// The deadline of the call that it runs.
    until: Option<Instant>,
    pub(super) attached: HashMap<u64, Attached>,
    /// Its driver has ended.
    over: bool,
    /// How the first start went.
    pub(super) started: Option<Result<(), CallError>>,
}

impl Scheduler {
    pub(super) fn new(workers: usize) -> Self {
        Self { seats: (0..workers).map(|_| WorkerSlot::default()).collect(), drivers: workers, ..Self::default() }
    }

    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + self.seats.iter().map(|seat| seat.pinned.len()).sum::<usize>()
    }

    /// Whether all drivers have ended.
    pub(super) fn over(&self) -> bool {
        self.drivers == 0
    }

    /// Whether a driver is to end, which has no process: the pool closes, and nothing waits that its worker could do.
    pub(super) fn leave(&mut self, index: usize) -> bool {
        let seat = &mut self.seats[index];
        let done = self.aborting || (self.queue.is_empty() && seat.pinned.is_empty());
        let leaves = self.closing && done && !seat.over;
        if leaves {
            seat.over = true;
            self.drivers -= 1;
        }
        leaves
    }

    /// The drivers from `first` on were never started, and the pool closes for that.
    pub(super) fn never_started(&mut self, first: usize) {
        for seat in &mut self.seats[first..] {
            seat.over = true;
            self.drivers -= 1;
        }
        self.closing = true;
    }

    /// Whether nobody is left to run a call.
    pub(super) fn abandoned(&self, call: &Call) -> bool {
        self.aborting || self.pin(call).map_or(self.drivers == 0, |index| self.seats[index].over)
    }

    /// Whether a call that is put into its queue now is claimed at once.
    pub(super) fn taken_at_once(&self, call: &Call) -> bool {
        match self.pin(call) {
            Some(index) => self.idle.contains(&index),
            None => !self.idle.is_empty(),
        }
    }

    fn pin(&self, call: &Call) -> Option<usize> {
        call.pinned.filter(|&index| index < self.seats.len())
    }

    pub(super) fn push(&mut self, call: Call) {
        match self.pin(&call) {
            Some(index) => self.seats[index].pinned.push_back(call),
            None => self.queue.push_back(call),
        }
    }

    /// Puts a call back to where it was taken from.
    pub(super) fn push_front(&mut self, call: Call) {
        match self.pin(&call) {
            Some(index) => self.seats[index].pinned.push_front(call),
            None => self.queue.push_front(call),
        }
    }

    pub(super) fn forget(&mut self, key: u64) {
        for seat in &mut self.seats {
            if seat.attached.remove(&key).is_some() {
                seat.forget.push(key);
            }
        }
    }

    /// Finds an idle worker that has something to do.
    pub(super) fn claim(&mut self) -> Option<Assignment> {
        let own = |&index: &usize| {
            let seat = &self.seats[index];
            self.closing || !seat.forget.is_empty() || !seat.pinned.is_empty()
        };
        let at = self.idle.iter().rposition(own).or_else(|| {
            let key = self.queue.front()?.program.key;
            // A worker that has the pipeline is better than one that has to load it first.
            let warm = self.idle.iter().rposition(|&index| self.seats[index].attached.contains_key(&key));
            warm.or(self.idle.len().checked_sub(1))
        })?;
        let index = self.idle.remove(at);
        let link = self.seats[index].link.clone()?;
        self.next(&link)
    }

    /// What a worker that is free does next. If there is nothing, it is idle.
    pub(super) fn next(&mut self, link: &Arc<WorkerConn>) -> Option<Assignment> {
        let index = link.worker.index;
        let seat = &mut self.seats[index];
        // A process that is gone gets no work, and the next one is its driver's to put to work.
        let link = seat.link.as_ref().filter(|known| Arc::ptr_eq(known, link)).cloned()?;
        seat.until = None;
        // Its answer is there.
        self.lone.take_if(|lone| Arc::ptr_eq(lone, &link));
        let job = if let Some(key) = seat.forget.pop() {
            Job::Forget(key)
        } else if let Some(mut call) = seat.pinned.pop_front().or_else(|| self.queue.pop_front()) {
            call.attempts += 1;
            seat.until = call.deadline.map(|(until, _)| until);
            Job::Call(call)
        } else if self.closing {
            Job::ShutDown
        } else {
            self.idle.push(index);
            return None;
        };
        let room = self.callers > 0;
        Some(Assignment { link, job, room })
    }

    /// A worker's process is gone. The way to it is given back, to be dropped when the lock is free.
    pub(super) fn ended(&mut self, index: usize) -> [Option<Arc<WorkerConn>>; 2] {
        self.idle.retain(|&idle| idle != index);
        let seat = &mut self.seats[index];
        seat.attached.clear();
        seat.forget.clear();
        seat.until = None;
        let link = seat.link.take();
        let lone = self.lone.take_if(|lone| lone.worker.index == index);
        [link, lone]
    }

    /// A call that loses an attempt because no process could be started: one that waits for this very worker, or for any worker if
    /// there is none.
    ///
    /// The workers of a pool fail together, and a call for any of them loses one attempt for each round of that, not one for each
    /// worker.
    pub(super) fn charge_failed_start(&mut self, index: usize, round: Duration) -> Option<Call> {
        if let Some(mut call) = self.seats[index].pinned.pop_front() {
            call.attempts += 1;
            return Some(call);
        }
        if self.seats.iter().any(|seat| seat.link.is_some()) {
            return None;
        }
        let now = Instant::now();
        if self.last_failed_start.is_some_and(|last| now.saturating_duration_since(last) < round) {
            return None;
        }
        let mut call = self.queue.pop_front()?;
        self.last_failed_start = Some(now);
        call.attempts += 1;
        Some(call)
    }

    /// Ends everything: no call is run any more. Gives those that waited, and the ways to all processes.
    pub(super) fn abort(&mut self) -> (Vec<Call>, Vec<Arc<WorkerConn>>) {
        (self.closing, self.aborting) = (true, true);
        let calls = self.queues().flat_map(std::mem::take).collect();
        (calls, self.seats.iter().filter_map(|seat| seat.link.clone()).collect())
    }

    fn queues(&mut self) -> impl Iterator<Item = &mut VecDeque<Call>> {
        std::iter::once(&mut self.queue).chain(self.seats.iter_mut().map(|seat| &mut seat.pinned))
    }

    /// Takes the calls whose deadline has passed while they wait.
    pub(super) fn late_calls(&mut self, now: Instant) -> Vec<Call> {
        let late = |call: &Call| matches!(call.deadline, Some((until, _)) if until <= now);
        let mut taken = Vec::new();
        for queue in self.queues() {
            if queue.iter().any(late) {
                let (gone, left) = std::mem::take(queue).into_iter().partition::<VecDeque<_>, _>(late);
                *queue = left;
                taken.extend(gone);
            }
        }
        taken
    }

    /// The workers that run a call whose deadline has passed. Each is named once for each call.
    pub(super) fn late_links(&mut self, now: Instant) -> Vec<Arc<WorkerConn>> {
        let late = |seat: &mut WorkerSlot| seat.until.take_if(|until| *until <= now).and(seat.link.clone());
        self.seats.iter_mut().filter_map(late).collect()
    }

    /// The next deadline, of calls that wait and of calls that run.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let running = self.seats.iter().filter_map(|seat| seat.until).min();
        let waiting = self.queues().flat_map(|queue| queue.iter()).filter_map(|call| call.deadline);
        waiting.map(|(until, _)| until).chain(running).min()
    }
}
