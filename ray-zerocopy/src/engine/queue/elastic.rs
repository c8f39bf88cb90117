//! Growing and shrinking of a pool: which workers without a process are wanted, and which idle workers
//! end.
//!
//! A pool has a slot for each worker up to its largest size. A slot without a wanted worker is
//! *dormant*. The rules:
//!
//! - A call that waits wakes a dormant worker, unless as many workers are starting as calls wait.
//! - A worker above the least number starts only while a call waits for it. So a call that is taken by
//!   another worker meanwhile starts no process. Each such worker looks twice, `GROWTH_DELAY` apart,
//!   unless it is the only one: a worker that has answered a call is idle a little later.
//! - A worker above the least number ends when it has been idle for the idle time. It leaves the list of
//!   idle workers first, so no call is assigned to it.
//! - A worker that could not be started becomes dormant again if another one has a process or is
//!   starting, and the pool does not grow for a while.
//!
//! Invariant: while a call waits in the shared queue, at least one worker is neither dormant nor
//! retired.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Job, QueuedCall};
use super::report::PoolReport;
use super::scheduler::{Assignment, PoolWorker, Scheduler};
use super::worker_slot::Process;
use crate::engine::pool_size::PoolSize;
use crate::os::sync::now;

/// Time for which calls have to wait before an additional worker starts, unless it is the only one. A
/// worker that is about to become idle takes a call sooner.
pub(in crate::engine) const GROWTH_DELAY: Duration = Duration::from_millis(1);
/// The shortest idle time. The deadline thread would spin with less.
const LEAST_IDLE: Duration = Duration::from_millis(1);
/// Pause after a worker could not be started, before the pool grows again.
pub(in crate::engine) const GROWTH_PAUSE: Duration = Duration::from_secs(1);

/// The size of a pool, and how it has changed.
pub(super) struct Elastic {
    pub(super) size: PoolSize,
    /// Time after which an idle worker ends.
    idle: Duration,
    /// The end of the pause after a worker could not be started.
    grow_after: Option<Instant>,
    grown: u64,
    shrunk: u64,
    refused: u64,
    refusal: Option<String>,
}

impl Elastic {
    pub(super) fn new(size: PoolSize, idle: Duration) -> Self {
        Self { size, idle: idle.max(LEAST_IDLE), grow_after: None, grown: 0, shrunk: 0, refused: 0, refusal: None }
    }
}

/// What a supervisor without a process does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Wanted {
    /// Start a process.
    Start {
        /// Whether the pool has its least number of workers without this one.
        is_additional: bool,
    },
    /// Wait until a call needs the worker.
    Rest,
}

impl<C: QueuedCall, W: PoolWorker> Scheduler<C, W> {
    pub(in crate::engine) fn is_elastic(&self) -> bool {
        self.elastic.size.is_elastic()
    }

    /// Number of workers that have a process, or are about to.
    pub(super) fn live(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_live()).count()
    }

    /// Returns `true` if no more than one worker has a process, or is about to.
    pub(in crate::engine) fn is_last(&self) -> bool {
        self.live() <= 1
    }

    /// Number of workers that are starting, or are started again.
    pub(in crate::engine) fn starting(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot.process, Process::Down)).count()
    }

    /// Number of workers for which there was memory, and that have no process yet.
    pub(in crate::engine) fn expected(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_expected).count()
    }

    /// Records that there is memory for a worker, which is about to start.
    pub(in crate::engine) fn expect_worker(&mut self, index: usize) {
        self.slots[index].is_expected = true;
    }

    /// Number of calls of the shared queue that wait for a worker. At least one if there is a call at all:
    /// the number of cancelled calls in the queue is an upper bound.
    fn waiting(&self) -> usize {
        let least = usize::from(!self.queue.is_empty());
        self.queue.len().saturating_sub(self.cancelled).max(least)
    }

    /// Wakes dormant workers, if calls wait for them. Returns `true` if there are any: their supervisors
    /// have to be notified.
    pub(in crate::engine) fn wake(&mut self) -> bool {
        if !self.is_elastic() {
            return false;
        }
        let mut has_woken = false;
        for slot in &mut self.slots {
            if matches!(slot.process, Process::Dormant) && !slot.pinned.is_empty() {
                slot.wake();
                has_woken = true;
            }
        }
        let waiting = self.waiting();
        if waiting == 0 || self.is_pausing(now()) {
            return has_woken;
        }
        let missing = waiting.saturating_sub(self.starting());
        let dormant = self.slots.iter_mut().filter(|slot| matches!(slot.process, Process::Dormant));
        for slot in dormant.take(missing) {
            slot.wake();
            has_woken = true;
        }
        has_woken
    }

    /// Returns `true` if the pool does not grow because a worker could not be started recently. A pool
    /// without a worker does not wait.
    fn is_pausing(&self, now: Instant) -> bool {
        self.elastic.grow_after.is_some_and(|after| now < after) && self.live() > 0
    }

    /// Decides whether a worker without a process is started. One that is not wanted becomes dormant.
    pub(in crate::engine) fn wanted(&mut self, index: usize) -> Wanted {
        let live = self.live();
        let is_additional = live > self.elastic.size.min;
        if matches!(self.slots[index].process, Process::Dormant) {
            if live > 0 || self.waiting() == 0 {
                return Wanted::Rest;
            }
            self.slots[index].wake();
            return Wanted::Start { is_additional: self.elastic.size.min == 0 };
        }
        let has_own_call = !self.slots[index].pinned.is_empty();
        // The others that are starting take one call each.
        let is_needed = has_own_call || self.waiting() >= self.starting();
        if self.is_open() && is_additional && !is_needed {
            self.slots[index].process = Process::Dormant;
            return Wanted::Rest;
        }
        Wanted::Start { is_additional }
    }

    /// Records that an additional worker could not be started, and makes it dormant. Returns `false` if
    /// no other worker has a process or is starting: then a call has to be told.
    pub(in crate::engine) fn growth_failed(&mut self, index: usize, reason: &str, now: Instant) -> bool {
        self.elastic.refused += 1;
        self.elastic.refusal = Some(reason.to_owned());
        self.elastic.grow_after = now.checked_add(GROWTH_PAUSE);
        self.slots[index].is_expected = false;
        let has_others = self.live() > 1;
        let is_dormant = has_others && self.slots[index].pinned.is_empty();
        if is_dormant {
            self.slots[index].process = Process::Dormant;
        }
        is_dormant
    }

    /// Counts a worker that has started because calls waited.
    pub(super) fn count_growth(&mut self, index: usize) {
        if std::mem::take(&mut self.slots[index].is_woken) {
            self.elastic.grown += 1;
        }
    }

    /// Number of workers that could end without the pool becoming smaller than its least size.
    fn spare(&self) -> usize {
        let staying = self.slots.iter().filter(|slot| slot.is_live() && !slot.is_ending).count();
        staying.saturating_sub(self.elastic.size.min)
    }

    /// Ends the workers that have been idle for the idle time, those that have been idle longest first.
    pub(in crate::engine) fn shrink(&mut self, now: Instant) -> Vec<Assignment<C, W>> {
        if !self.is_elastic() || !self.is_open() {
            return Vec::new();
        }
        let (spare, limit) = (self.spare(), self.elastic.idle);
        let is_over = |index: &&usize| {
            let since = self.slots[**index].idle_since;
            since.is_some_and(|since| now.saturating_duration_since(since) >= limit)
        };
        // The list is in the order in which the workers have become idle.
        let ending: Vec<usize> = self.idle.iter().filter(is_over).take(spare).copied().collect();
        self.idle.retain(|index| !ending.contains(index));
        let mut assignments = Vec::new();
        for index in ending {
            self.elastic.shrunk += 1;
            let slot = &mut self.slots[index];
            slot.is_ending = true;
            slot.is_woken = true;
            if let Some(conn) = slot.process.conn().map(Arc::clone) {
                assignments.push(Assignment { conn, job: Job::ShutDown, wakes_callers: false });
            }
        }
        assignments
    }

    /// The next instant at which the pool may have to shrink, or may grow again.
    pub(in crate::engine) fn next_resize(&self, now: Instant) -> Option<Instant> {
        if !self.is_elastic() || !self.is_open() {
            return None;
        }
        let end_of = |since: Instant| since.checked_add(self.elastic.idle);
        // A worker that becomes idle from now on is idle long enough after this at the earliest.
        let shrinks = (self.spare() > 0).then(|| {
            let idle = self.idle.iter().filter_map(|&index| self.slots[index].idle_since);
            end_of(idle.min().unwrap_or(now))
        });
        let grows = self.elastic.grow_after.filter(|after| *after > now);
        shrinks.flatten().into_iter().chain(grows).min()
    }

    /// Number of calls that are queued or running.
    pub(in crate::engine) fn unanswered(&self) -> usize {
        let busy = self.slots.iter().enumerate().filter(|(index, slot)| !slot.is_ending && !self.idle.contains(index));
        self.queued() + busy.filter_map(|(_, slot)| slot.process.conn()).map(|conn| conn.calls()).sum::<usize>()
    }

    /// How the pool has grown and shrunk.
    pub(in crate::engine) fn pool_report(&self) -> PoolReport {
        let Elastic { size: PoolSize { min, max }, grown, shrunk, refused, ref refusal, .. } = self.elastic;
        let workers = self.connections().count();
        PoolReport { workers, min, max, grown, shrunk, refused, refusal: refusal.clone() }
    }
}
