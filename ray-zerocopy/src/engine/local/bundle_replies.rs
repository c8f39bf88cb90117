//! What follows from the replies to a bundle of calls, and from their absence.

use std::sync::Arc;
use std::time::Duration;

use super::bundle::Failure;
use super::dispatch::Dispatcher;
use super::protocol::Answer;
use super::replies::WorkerExit;
use super::transport::Delivery;
use super::worker_conn::{Collected, WorkerConn};
use crate::engine::call::Call;
use crate::engine::message::Incoming;
use crate::engine::queue::bundle::{Bundle, PutBack};
use crate::engine::queue::failures::{discard, fail_expired, fail_shut_down};
use crate::engine::queue::job::{Job, QueuedCall};
use crate::error::call::{CallError, CallPart, CallPhase};
use crate::os::sync::now;

/// First pause after which the supervisor looks at a bundle from which it has heard nothing. Each next
/// one is twice as long.
const FIRST_LOOK: Duration = Duration::from_micros(500);
/// Longest pause: more than the supervisor waits for a reply.
const LONGEST: Duration = Duration::from_secs(1);
/// Pause from which on a worker that has not begun is not waited for.
const PATIENCE: Duration = Duration::from_millis(64);

/// What the supervisor knows of a bundle from its last look.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastLook {
    /// Time until the next look.
    pub(super) pause: Duration,
    /// The call that was running, if there was a look.
    running: Option<Option<usize>>,
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
            Answer::Done => self.handle_result(conn, serial, None, payload),
            Answer::Failed(failure) => self.handle_result(conn, serial, Some(failure), payload),
            Answer::Over => self.end_bundle(conn),
            Answer::Unreadable(reason) => {
                self.handle_unreadable_request(conn, &reason);
                None
            }
            other => Some(WorkerExit::new(format!("it sent {other:?} while it ran several calls, and was replaced"))),
        }
    }

    /// Handles a result that was sent as a packet.
    fn handle_result(&self, conn: &WorkerConn, serial: u64, failure: Failure, payload: Incoming) -> Option<WorkerExit> {
        let (collected, call) = conn.take_by_packet(Some(serial));
        let exit = self.deliver(collected);
        let Some(call) = call else {
            let how = format!("it answered call {serial} out of turn, and was replaced");
            return exit.or_else(|| Some(WorkerExit::new(how)));
        };
        let result = conn.result(&call, failure, payload);
        call.answer(result);
        exit
    }

    /// Handles that a result which was sent as a packet is lost. Only its call fails. Returns why the worker
    /// has to be replaced, if it has to.
    pub(super) fn handle_lost_result(&self, conn: &WorkerConn, part: CallPart, reason: &str) -> Option<WorkerExit> {
        let (collected, call) = conn.take_by_packet(None);
        let exit = self.deliver(collected);
        let Some(call) = call else {
            return exit
                .or_else(|| Some(WorkerExit::new(format!("a message was lost, and it was replaced: {reason}"))));
        };
        let method = call.method.to_owned();
        call.answer(Err(CallError::Wire { method, part, reason: reason.to_owned() }));
        exit
    }

    /// Handles that the worker could not read a packet. If it has not begun a call of the bundle, that was
    /// the packet.
    fn handle_unreadable_request(&self, conn: &Arc<WorkerConn>, reason: &str) {
        let (withdrawn, has_begun) = conn.withdraw_all();
        if has_begun {
            return self.put_back(withdrawn, conn.worker.index);
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
                self.put_back(left, conn.worker.index);
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

    /// Looks at the bundle in flight, if there is one. Returns why the worker has to be replaced, if an
    /// answer could not be read.
    pub(super) fn look_at_bundle(&self, conn: &Arc<WorkerConn>, last: &mut LastLook) -> Option<WorkerExit> {
        let (collected, put_back) = {
            // Before the lock of the connection, so that no other deadline is set meanwhile.
            let mut scheduler = self.queue.lock();
            let look = conn.look_at_bundle(last.running, last.pause < PATIENCE, now());
            *last = LastLook { pause: (last.pause * 2).min(LONGEST), running: Some(look.running) };
            if look.has_bundle {
                scheduler.only_runs(conn, look.deadline);
                self.queue.wake_timer(&scheduler, look.deadline);
            }
            (look.collected, scheduler.put_back(look.withdrawn, conn.worker.index))
        };
        self.finish_put_back(put_back);
        self.deliver(collected)
    }

    /// Puts calls back into the queue, and sends them to workers that are idle. `from` is the worker that
    /// had them and has not begun them.
    pub(super) fn put_back(&self, calls: Vec<Call>, from: usize) {
        let put_back = {
            let mut scheduler = self.queue.lock();
            let deadline = calls.iter().filter_map(QueuedCall::deadline).min();
            let put_back = scheduler.put_back(calls, from);
            self.queue.wake_timer(&scheduler, deadline);
            put_back
        };
        self.finish_put_back(put_back);
    }

    /// Does what follows from calls that were put back.
    pub(super) fn finish_put_back(&self, put_back: PutBack<Call, WorkerConn>) {
        if put_back.has_woken {
            self.queue.wanted.notify_all();
        }
        if let Some(conn) = put_back.unread {
            conn.hand_to_supervisor();
        }
        for assignment in put_back.assignments {
            self.send(assignment);
        }
        for call in put_back.stranded {
            fail_shut_down(call);
        }
    }

    /// Handles the end of a worker that ran a bundle. What it had finished has been collected.
    pub(super) fn bundle_lost(&self, conn: &WorkerConn, mut bundle: Bundle<Call>, exit: &WorkerExit, is_expired: bool) {
        let has_begun = bundle.has_begun();
        let others = bundle.take_unbegun();
        if has_begun {
            self.put_back(others, conn.worker.index);
        } else {
            // As if it had not received them: none has begun. A limit ends that if they kill each worker.
            for call in others.into_iter().rev() {
                self.retry_or_fail(conn.worker, call, WorkerExit { delivery: Delivery::NotReceived, ..exit.clone() });
            }
        }
        for call in bundle.into_calls().into_iter().rev() {
            if is_expired && call.is_expired(now()) {
                fail_expired(call, CallPhase::Running(conn.worker));
            } else {
                let how = exit.how.clone();
                self.retry_or_fail(conn.worker, call, WorkerExit { how, delivery: Delivery::Received });
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
