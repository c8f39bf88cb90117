//! What follows from the replies to a bundle of calls, and from their absence.

use std::sync::Arc;
use std::time::Duration;

use super::bundle_conn::begun_and_others;
use super::dispatch::Dispatcher;
use super::protocol::Answer;
use super::replies::WorkerExit;
use super::transport::Delivery;
use super::worker_conn::{Collected, WorkerConn};
use crate::engine::call::Call;
use crate::engine::message::Incoming;
use crate::engine::queue::bundle::Bundle;
use crate::engine::queue::failures::{discard, fail_expired, fail_shut_down};
use crate::engine::queue::job::{Job, QueuedCall};
use crate::error::call::{CallError, CallPart, CallPhase};
use crate::os::sync::now;

/// First pause after which the supervisor looks at a bundle from which it has heard nothing. Each next
/// one is twice as long.
pub(super) const FIRST_LOOK: Duration = Duration::from_micros(500);

/// What the supervisor knows of a bundle from its last look.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastLook {
    pub(super) pause: Duration,
    /// The call that was running.
    running: Option<usize>,
}

impl LastLook {
    pub(super) fn none() -> Self {
        Self { pause: FIRST_LOOK, running: None }
    }
}

impl Dispatcher {
    /// Handles a reply while a bundle is in flight. Returns why the worker has to be replaced, if it has
    /// to.
    pub(super) fn handle_bundle_reply(
        &self,
        conn: &Arc<WorkerConn>,
        serial: u64,
        answer: Answer,
        payload: Incoming,
    ) -> Option<WorkerExit> {
        match answer {
            Answer::Answered => self.deliver(conn.collect()),
            Answer::Done | Answer::Failed(_) => {
                let (collected, call) = conn.take_bundled(serial);
                let exit = self.deliver(collected);
                let Some(call) = call else {
                    let how = format!("it answered call {serial} out of turn, and was replaced");
                    return exit.or_else(|| Some(WorkerExit::new(how)));
                };
                let result = conn.result(&call, answer, payload);
                call.answer(result);
                exit
            }
            Answer::Over => self.end_bundle(conn),
            Answer::Unreadable(reason) => {
                self.handle_unreadable_request(conn, &reason);
                None
            }
            other => Some(WorkerExit::new(format!("it sent {other:?} while it ran several calls, and was replaced"))),
        }
    }

    /// Handles that the worker could not read a packet. If it has not begun a call of the bundle, that was
    /// the packet.
    fn handle_unreadable_request(&self, conn: &Arc<WorkerConn>, reason: &str) {
        let (withdrawn, has_begun) = conn.withdraw_all();
        if has_begun {
            return self.put_back(withdrawn);
        }
        drop(conn.take());
        for call in withdrawn.into_iter().rev() {
            self.retry_unreceived(call, reason);
        }
        self.send_next(conn);
    }

    /// Requeues a call whose arguments were lost, or fails it if it has no attempt left.
    fn retry_unreceived(&self, call: Call, reason: &str) {
        if call.has_attempts_left() {
            if let Some(assignment) = self.requeue(call) {
                self.send(assignment);
            }
        } else {
            let (method, part) = (call.method.to_owned(), CallPart::Arguments);
            call.answer(Err(CallError::Wire { method, part, reason: reason.to_owned() }));
        }
    }

    /// Sends the worker its next job, and then answers the calls of the bundle that is over.
    fn end_bundle(&self, conn: &Arc<WorkerConn>) -> Option<WorkerExit> {
        let (collected, left) = conn.end_bundle();
        match left {
            Ok(left) => {
                self.put_back(left);
                self.send_next(conn);
                self.deliver(collected)
            }
            Err(reason) => {
                let exit = self.deliver(collected);
                exit.or_else(|| Some(WorkerExit::new(format!("{reason}, and it was replaced"))))
            }
        }
    }

    /// Answers calls. Returns why the worker has to be replaced, if an answer could not be read.
    pub(super) fn deliver(&self, collected: Collected) -> Option<WorkerExit> {
        for (call, result) in collected.answered {
            call.answer(result);
        }
        let how = |error| format!("its answer could not be read, and it was replaced: {error}");
        collected.broken.map(|error| WorkerExit::new(how(error)))
    }

    /// Looks at a bundle from which nothing has been heard for `last.pause`.
    pub(super) fn look_at_bundle(&self, conn: &Arc<WorkerConn>, last: &mut LastLook) -> Option<WorkerExit> {
        let look = conn.look_at_bundle(last.running, now());
        *last = LastLook { pause: last.pause * 2, running: look.running };
        {
            let mut scheduler = self.queue.lock();
            scheduler.only_runs(conn, look.deadline);
            self.queue.wake_timer(&scheduler, look.deadline);
        }
        self.put_back(look.withdrawn);
        self.deliver(look.collected)
    }

    /// Puts calls that have not begun back into the queue, and sends them to workers that are idle.
    pub(super) fn put_back(&self, calls: Vec<Call>) {
        if calls.is_empty() {
            return;
        }
        let deadline = calls.iter().filter_map(QueuedCall::deadline).min();
        let (stranded, has_woken) = {
            let mut scheduler = self.queue.lock();
            let stranded = scheduler.put_back(calls);
            self.queue.wake_timer(&scheduler, deadline);
            (stranded, scheduler.wake())
        };
        if has_woken {
            self.queue.wanted.notify_all();
        }
        for call in stranded {
            fail_shut_down(call);
        }
        self.assign_all();
    }

    /// Handles the end of a worker that ran a bundle. What it had finished has been collected.
    pub(super) fn bundle_lost(&self, conn: &WorkerConn, bundle: Bundle<Call>, exit: &WorkerExit, is_expired: bool) {
        let has_begun = bundle.has_begun();
        let (begun, others) = begun_and_others(bundle);
        if has_begun {
            self.put_back(others);
            for call in begun.into_iter().rev() {
                if is_expired && call.is_expired(now()) {
                    fail_expired(call, CallPhase::Running(conn.worker));
                } else {
                    let how = exit.how.clone();
                    self.retry_or_fail(conn.worker, call, WorkerExit { how, delivery: Delivery::Received });
                }
            }
        } else {
            for call in others.into_iter().rev() {
                self.retry_or_fail(conn.worker, call, exit.clone());
            }
        }
    }

    /// Prepares a job to be sent: removes calls of a bundle that do not run any more. Returns `None` if
    /// none is left.
    pub(super) fn without_void_calls(&self, job: Job<Call>) -> Option<Job<Call>> {
        let Job::Bundle(calls) = job else { return Some(job) };
        let now = now();
        let is_void = |call: &Call| call.is_cancelled() || call.is_expired(now);
        let (void, mut calls) = calls.into_iter().partition::<Vec<_>, _>(is_void);
        for call in void {
            if call.is_cancelled() {
                discard(call);
            } else {
                fail_expired(call, CallPhase::Queued);
            }
        }
        match calls.len() {
            0 => None,
            1 => calls.pop().map(Job::Call),
            _ => Some(Job::Bundle(calls)),
        }
    }
}
