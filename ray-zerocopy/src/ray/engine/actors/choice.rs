//! Which calls an actor gets next.
//!
//! Small calls that wait are sent in one call of Ray, a bundle, which is a matter of transport: each remains a
//! call of its own. As in a pool of this machine, an actor gets its share of what waits, and as many calls as it
//! should finish in half a millisecond. Unlike there, an actor may already have a call, behind which the bundle
//! waits, so that it does not have to wait for the driver.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::State;
use super::slot::{MAX_CALLS, max_calls};
use crate::engine::queue::bundle_size::{BundleRoom, CallTime};
use crate::ray::engine::in_flight::InFlightCall;

/// What an actor gets in one call of Ray.
pub(super) struct Assignment {
    /// The actor.
    pub(super) index: usize,
    pub(super) first: InFlightCall,
    /// The calls that are sent with it.
    pub(super) rest: Vec<InFlightCall>,
    /// Whether the calls are for this actor only.
    pub(super) is_pinned: bool,
}

impl State {
    /// Takes the next calls of an actor that has capacity. `bundles` is whether calls may be sent together.
    pub(super) fn next_assignment(&mut self, bundles: bool) -> Option<Assignment> {
        let times = Times { bundles, times: &self.times };
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(next) = slot.waiting.front().filter(|_| slot.worker.is_some() && !slot.is_submitting) else {
                continue;
            };
            // Other calls are submitted to Ray immediately, which runs them in this order.
            let is_limited = slot.direct.is_some() || times.has_company(next);
            let most = if is_limited { MAX_CALLS } else { usize::MAX };
            if slot.busy != 0 && (slot.busy >= most || next.needs_idle_actor()) {
                continue;
            }
            let share = slot.waiting.len();
            let first = slot.waiting.pop_front()?;
            let rest = times.take_company(&first, &mut slot.waiting, share);
            return Some(Assignment { index, first, rest, is_pinned: true });
        }
        let max_calls = max_calls(self.waiting.front()?);
        let free = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_available() && slot.busy < max_calls);
        let index = free.min_by_key(|(_, slot)| slot.busy)?.0;
        let live = self.slots.iter().filter(|slot| slot.worker.is_some()).count();
        let share = self.waiting.len() / live.max(1);
        let first = self.waiting.pop_front()?;
        let rest = times.take_company(&first, &mut self.waiting, share);
        Some(Assignment { index, first, rest, is_pinned: false })
    }

    /// Records how long a call has taken.
    pub(super) fn record_time(&mut self, method: &'static str, took: Duration) {
        self.times.entry(method).or_default().record(took);
    }

    /// Puts a call that has not run back to its place. Returns it if no actor will run it.
    pub(super) fn put_back(&mut self, call: InFlightCall) -> Option<InFlightCall> {
        let pinned = call.with(|call| call.pinned)?;
        if self.aborted {
            return Some(call);
        }
        let queue = match pinned.and_then(|index| self.slots.get_mut(index)) {
            Some(slot) => &mut slot.waiting,
            None => &mut self.waiting,
        };
        let place = queue.partition_point(|waiting| waiting.number() < call.number());
        queue.insert(place, call);
        None
    }
}

/// How long the methods take, for the calls that may be sent together.
struct Times<'a> {
    bundles: bool,
    times: &'a HashMap<&'static str, CallTime>,
}

impl Times<'_> {
    /// Takes the room of a call in a bundle. Returns `false` if there is too little, or if it is sent alone.
    fn take_room(&self, room: &mut BundleRoom, call: &InFlightCall) -> bool {
        let time = self.times.get(call.method()).copied().unwrap_or_default();
        self.bundles && call.bundled_size().is_some_and(|bytes| room.take(bytes, time))
    }

    /// Returns `true` if a call may be sent with another one like it.
    fn has_company(&self, call: &InFlightCall) -> bool {
        let mut room = BundleRoom::new(2);
        self.take_room(&mut room, call) && self.take_room(&mut room, call)
    }

    /// Takes the calls at the front of the queue that are sent with `first`: with it, at most `share`.
    fn take_company(
        &self,
        first: &InFlightCall,
        queue: &mut VecDeque<InFlightCall>,
        share: usize,
    ) -> Vec<InFlightCall> {
        let mut room = BundleRoom::new(share);
        let mut calls = Vec::new();
        if !self.take_room(&mut room, first) {
            return calls;
        }
        while let Some(call) = queue.pop_front_if(|call| !call.is_open() || self.take_room(&mut room, call)) {
            // A call that is completed, because it was cancelled, has no room.
            calls.extend(Some(call).filter(InFlightCall::is_open));
        }
        calls
    }
}
