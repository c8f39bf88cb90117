//! The deadline thread of a pool: sleeps until the next deadline of a queued or running call.
//!
//! A queued call whose deadline has passed is answered here. For a running one, the thread hangs up
//! on the worker, and the supervisor detects that and does the rest.

use super::dispatch::{Dispatcher, fail_expired};
use crate::error::call::CallPhase;
use crate::os::sync::now;

/// Runs until the supervisors have exited.
pub(super) fn run_deadline_timer(dispatcher: &Dispatcher) {
    let mut scheduler = dispatcher.scheduler.lock();
    while !scheduler.is_over() {
        let now = now();
        let (queued, running) = (scheduler.take_expired(now), scheduler.take_overdue(now));
        if !(queued.is_empty() && running.is_empty()) {
            drop(scheduler);
            dispatcher.progress.notify_all();
            for conn in running {
                conn.expire();
            }
            for call in queued {
                fail_expired(call, CallPhase::Queued);
            }
            scheduler = dispatcher.scheduler.lock();
            continue;
        }
        scheduler.timer_wakes_at = scheduler.next_deadline();
        let pause = scheduler.timer_wakes_at.map(|wakes_at| wakes_at.saturating_duration_since(now));
        scheduler = dispatcher.timer.wait(scheduler, pause);
        scheduler.timer_wakes_at = None;
    }
}
