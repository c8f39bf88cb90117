//! The deadline thread of a pool: sleeps until the next deadline of a queued or running call, and until
//! the pool has to shrink or may grow again.
//!
//! A queued call whose deadline has passed is answered here. For a running one, the worker is told:
//! see [`PoolWorker::expire`].

use super::call_queue::CallQueue;
use super::failures::fail_expired;
use super::scheduler::{Assignment, PoolWorker};
use crate::engine::call::Call;
use crate::error::call::CallPhase;
use crate::os::sync::now;

/// Runs until all workers have retired. `send` sends a job to an idle worker.
pub(in crate::engine) fn run_deadline_timer<W: PoolWorker>(queue: &CallQueue<W>, send: impl Fn(Assignment<Call, W>)) {
    let mut scheduler = queue.lock();
    while !scheduler.is_over() {
        let now = now();
        let (queued, running) = (scheduler.take_expired(now), scheduler.take_overdue(now));
        let ending = scheduler.shrink(now);
        if scheduler.wake() {
            queue.wanted.notify_all();
        }
        if !(queued.is_empty() && running.is_empty() && ending.is_empty()) {
            drop(scheduler);
            for assignment in ending {
                send(assignment);
            }
            queue.progress.notify_all();
            for worker in running {
                worker.expire();
            }
            for call in queued {
                fail_expired(call, CallPhase::Queued);
            }
            scheduler = queue.lock();
            continue;
        }
        scheduler.timer_wakes_at = scheduler.next_deadline().into_iter().chain(scheduler.next_resize(now)).min();
        let pause = scheduler.timer_wakes_at.map(|wakes_at| wakes_at.saturating_duration_since(now));
        scheduler = queue.timer.wait(scheduler, pause);
        scheduler.timer_wakes_at = None;
    }
}
