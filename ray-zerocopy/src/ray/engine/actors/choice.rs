//! Which calls an actor gets next.
//!
//! As a worker of a pool of this machine, an actor gets its share of the small calls that wait, in one call of Ray.
//! Unlike there, it may already have a call, behind which they wait, so that it does not have to wait for the driver.

use super::State;
use super::slot::{MAX_CALLS, max_calls};
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
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(next) = slot.waiting.front().filter(|_| slot.worker.is_some() && !slot.is_submitting) else {
                continue;
            };
            // Other calls are submitted to Ray immediately, which runs them in this order.
            let is_limited = slot.direct.is_some() || (bundles && self.times.may_have_company(next));
            let most = if is_limited { MAX_CALLS } else { usize::MAX };
            if slot.busy != 0 && (slot.busy >= most || slot.exclusive > 0 || next.needs_idle_actor()) {
                continue;
            }
            let share = if bundles { slot.waiting.len() } else { 1 };
            let first = slot.waiting.pop_front()?;
            let rest = self.times.take_company(&first, &mut slot.waiting, share);
            return Some(Assignment { index, first, rest, is_pinned: true });
        }
        let max_calls = max_calls(self.waiting.front()?);
        let free = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_available() && slot.busy < max_calls);
        let index = free.min_by_key(|(_, slot)| slot.busy)?.0;
        let live = self.slots.iter().filter(|slot| slot.worker.is_some()).count();
        let share = if bundles { self.waiting.len() / live.max(1) } else { 1 };
        let first = self.waiting.pop_front()?;
        let rest = self.times.take_company(&first, &mut self.waiting, share);
        Some(Assignment { index, first, rest, is_pinned: false })
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
