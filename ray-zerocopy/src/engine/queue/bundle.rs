//! Bundles: small calls that wait are sent to a worker together, so that there is one wake-up for many.
//!
//! A bundle is a matter of transport. Each call in it has its own attempts, deadline, cancellation and
//! answer, as if it were sent alone:
//!
//! - Only a worker that becomes free while calls wait gets one, and not more than its share of what
//!   waits. So a lone call, and a call that finds an idle worker, are sent alone.
//! - Only calls that a worker finishes quickly are bundled: as many as have [room](BundleRoom), by the time
//!   that its last calls have taken.
//! - The owner can take back the calls that the worker has not begun. It does so when a call takes longer
//!   than expected, so the others do not wait behind it while another worker is free.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::bundle_size::{BundleRoom, CallTime};
use super::job::{Job, QueuedCall};
use super::scheduler::{Assignment, PoolWorker, Scheduler};
use crate::os::sync::now;

/// Calls that a worker runs one after the other.
pub(in crate::engine) struct Bundle<C> {
    /// The calls that have not been answered, in their order.
    calls: VecDeque<C>,
    /// Number of calls that have been answered.
    answered: usize,
    /// Number of calls that the worker has begun.
    begun: usize,
    /// Number of calls that it has finished. Their answers may not have been read.
    done: usize,
}

impl<C> Bundle<C> {
    pub(in crate::engine) fn new(calls: Vec<C>) -> Self {
        Self { calls: calls.into(), answered: 0, begun: 0, done: 0 }
    }

    /// The calls that have not been answered.
    pub(in crate::engine) fn calls(&self) -> impl ExactSizeIterator<Item = &C> {
        self.calls.iter()
    }

    pub(in crate::engine) fn calls_mut(&mut self) -> impl Iterator<Item = &mut C> {
        self.calls.iter_mut()
    }

    /// Returns `true` if all calls have been answered.
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns `true` if the worker has begun a call.
    pub(in crate::engine) fn has_begun(&self) -> bool {
        self.begun > 0
    }

    /// Records how many calls the worker has begun and finished, as it says.
    pub(in crate::engine) fn progress(&mut self, begun: usize, done: usize) {
        let all = self.answered + self.calls.len();
        self.begun = begun.clamp(self.answered, all);
        self.done = done.clamp(self.answered, self.begun);
    }

    /// Number of finished calls whose answers have not been read.
    pub(in crate::engine) fn unread(&self) -> usize {
        self.done - self.answered
    }

    fn running_at(&self) -> Option<usize> {
        (self.begun > self.done).then(|| self.begun - 1 - self.answered)
    }

    /// The call that the worker runs.
    pub(in crate::engine) fn running(&self) -> Option<&C> {
        self.calls.get(self.running_at()?)
    }

    pub(in crate::engine) fn running_mut(&mut self) -> Option<&mut C> {
        self.calls.get_mut(self.running_at()?)
    }

    /// The number of the call that the worker runs, from 0.
    pub(in crate::engine) fn running_number(&self) -> Option<usize> {
        (self.begun > self.done).then(|| self.begun - 1)
    }

    /// The number of the next call to be answered, from 0.
    pub(in crate::engine) fn next_number(&self) -> usize {
        self.answered
    }

    /// Takes the next call, because its answer has been read.
    pub(in crate::engine) fn take_answered(&mut self) -> Option<C> {
        let call = self.calls.pop_front()?;
        self.answered += 1;
        self.progress(self.begun, self.done);
        Some(call)
    }

    /// The calls that the worker has not begun.
    pub(in crate::engine) fn unbegun(&self) -> impl ExactSizeIterator<Item = &C> {
        self.calls.iter().skip(self.begun - self.answered)
    }

    /// Takes the calls that the worker has not begun, and does not begin any more.
    pub(in crate::engine) fn take_unbegun(&mut self) -> Vec<C> {
        self.calls.split_off(self.begun - self.answered).into()
    }

    /// Puts back calls that were taken.
    pub(in crate::engine) fn give_back(&mut self, calls: Vec<C>) {
        self.calls.extend(calls);
    }

    pub(in crate::engine) fn into_calls(self) -> Vec<C> {
        self.calls.into()
    }
}

/// What follows from calls that were put back.
#[must_use]
pub(in crate::engine) struct PutBack<C: QueuedCall, W> {
    /// Calls that no supervisor is left to run.
    pub(in crate::engine) stranded: Vec<C>,
    /// Jobs to send.
    pub(in crate::engine) assignments: Vec<Assignment<C, W>>,
    /// A connection whose reply no thread reads. Its supervisor has to read it now.
    pub(in crate::engine) unread: Option<Arc<W>>,
    /// Whether supervisors of dormant workers have to be notified.
    pub(in crate::engine) has_woken: bool,
}

/// How long a worker's calls take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the current job was assigned, and its number of calls.
    current: Option<(Instant, u32)>,
    pub(super) per_call: CallTime,
}

impl Pace {
    pub(super) fn begin(&mut self, now: Instant, calls: usize) {
        self.current = Some((now, u32::try_from(calls).unwrap_or(u32::MAX)));
    }

    /// Records that calls of the current job were taken back.
    fn returned(&mut self, calls: usize) {
        if let Some((_, all)) = &mut self.current {
            *all = all.saturating_sub(u32::try_from(calls).unwrap_or(u32::MAX));
        }
    }

    /// Records that the worker is free.
    pub(super) fn end(&mut self, now: Instant) {
        let Some((since, calls)) = self.current.take() else { return };
        self.per_call.record(now.saturating_duration_since(since) / calls.max(1));
    }
}

impl<C: QueuedCall, W: PoolWorker> Scheduler<C, W> {
    /// Takes the next call of a worker that is free, and those behind it that are sent with it.
    pub(super) fn next_calls(&mut self, index: usize) -> Option<Job<C>> {
        let share = self.queue.len() / self.live().max(1);
        let slot = &mut self.slots[index];
        let (queue, share) = match slot.pinned.len() {
            0 => (&mut self.queue, share),
            pinned => (&mut slot.pinned, pinned),
        };
        let mut first = queue.pop_front()?;
        *first.attempts().made += 1;
        slot.deadline = first.deadline();
        if !W::TAKES_BUNDLES {
            return Some(Job::Call(first));
        }
        let now = now();
        slot.pace.end(now);
        let (key, per_call) = (first.program_key(), slot.pace.per_call);
        let mut room = BundleRoom::new(share);
        let mut fits = |call: &C| call.bundled_size().is_some_and(|bytes| room.take(bytes, per_call));
        let is_first_of_several = slot.loaded.contains_key(&key) && fits(&first);
        let mut calls = vec![first];
        while is_first_of_several
            && let Some(mut call) = queue.pop_front_if(|call| call.program_key() == key && fits(call))
        {
            *call.attempts().made += 1;
            slot.deadline = slot.deadline.into_iter().chain(call.deadline()).min();
            calls.push(call);
        }
        slot.pace.begin(now, calls.len());
        match calls.len() {
            1 => calls.pop().map(Job::Call),
            _ => Some(Job::Bundle(calls)),
        }
    }

    /// Puts calls back to the front of the queues from which they were assigned, in their order, and
    /// assigns them to idle workers. Worker `from` had them and has not begun them, so their attempts do not
    /// count.
    pub(in crate::engine) fn put_back(&mut self, calls: Vec<C>, from: usize) -> PutBack<C, W> {
        let mut result = PutBack { stranded: Vec::new(), assignments: Vec::new(), unread: None, has_woken: false };
        if calls.is_empty() {
            return result;
        }
        self.slots[from].pace.returned(calls.len());
        for mut call in calls.into_iter().rev() {
            call.attempts().refund();
            result.stranded.extend(self.put_back_one(call).err());
        }
        result.assignments.extend(std::iter::from_fn(|| self.assign()));
        (result.unread, result.has_woken) = (self.take_unread(), self.wake());
        result
    }

    /// Records that the worker becomes idle.
    pub(super) fn stops_working(&mut self, index: usize) {
        if W::TAKES_BUNDLES {
            self.slots[index].pace.end(now());
        }
    }

    /// Records the deadline of the call that a worker runs, after other calls were taken from it.
    pub(in crate::engine) fn only_runs(&mut self, conn: &Arc<W>, deadline: Option<Instant>) {
        let slot = &mut self.slots[conn.index()];
        if slot.process.conn().is_some_and(|current| Arc::ptr_eq(current, conn)) {
            slot.deadline = deadline;
        }
    }
}
