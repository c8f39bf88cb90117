//! Handling of workers' replies: completes the call, and decides whether the worker is replaced.

use std::io;
use std::sync::Arc;

use super::dispatch::Dispatcher;
use super::protocol::Answer;
use super::transport::{Delivery, Received};
use super::worker_conn::WorkerConn;
use crate::engine::call::Call;
use crate::engine::message::Incoming;
use crate::engine::program::Program;
use crate::engine::queue::failures::{discard, fail_lost, start_error};
use crate::engine::queue::job::{InFlight, QueuedCall};
use crate::error::call::{CallError, CallPart, Worker};

/// Part of a call that did not arrive in the worker.
const ARGUMENTS: &str = "the arguments";

/// How a process ended, or why it must be ended.
#[derive(Clone)]
pub(super) struct WorkerExit {
    pub(super) how: String,
    /// Whether the process received the last packet.
    pub(super) delivery: Delivery,
}

impl WorkerExit {
    pub(super) fn new(how: impl Into<String>) -> Self {
        Self { how: how.into(), delivery: Delivery::Received }
    }
}

impl Dispatcher {
    /// Handles a reply. Returns why the worker has to be replaced if it is not a reply to the job
    /// in flight.
    pub(super) fn handle_reply(&self, conn: &Arc<WorkerConn>, received: Received<(u64, Answer)>) -> Option<WorkerExit> {
        let worker = conn.worker;
        let (serial, answer) = received.message;
        // A request that could not be read has no number.
        if !conn.is_current(serial) && !matches!(answer, Answer::Unreadable(_)) {
            return Some(WorkerExit::new(format!(
                "it answered request {serial}, which was not sent, and was replaced"
            )));
        }
        // They come before the answer.
        if let Err(error) = conn.deliver_items() {
            return Some(WorkerExit::new(format!("its item could not be read, and it was replaced: {error}")));
        }
        match answer {
            Answer::Items => return None,
            Answer::Item(number) => return item_exit(conn.deliver_item(number, received.payload)),
            _ => {}
        }
        if conn.runs_bundle() {
            return self.handle_bundle_reply(conn, serial, answer, received.payload);
        }
        match (conn.take(), answer) {
            (Some(InFlight::Call(call)), Answer::Done) => self.finish(conn, call, Ok(received.payload)),
            (Some(InFlight::Call(call)), Answer::Failed(failure)) => {
                let error = failure.of(call.method, worker);
                self.finish(conn, call, Err(error));
            }
            (Some(InFlight::Load(program, call)), Answer::Loaded(attached)) => {
                conn.program_loaded(program.key);
                self.load_finished(worker.index, program.key, Ok(*attached));
                match call {
                    Some(call) => self.send_after_load(conn, call),
                    None => self.send_next(conn),
                }
            }
            (Some(InFlight::Load(program, call)), Answer::NotLoaded(error)) => {
                self.handle_failed_load(conn, &program, call, CallError::Load { worker, error });
            }
            (Some(InFlight::Forget(key)), Answer::Forgotten) => {
                conn.program_forgotten(key);
                self.send_next(conn);
            }
            (job, Answer::Unreadable(reason)) => return self.handle_lost_message(conn, job, ARGUMENTS, &reason),
            (job, answer) => {
                let exit =
                    WorkerExit::new(format!("it sent an answer to another request, {answer:?}, and was replaced"));
                if let Some(job) = job {
                    conn.restore(job);
                }
                return Some(exit);
            }
        }
        None
    }

    /// Answers a call, and then sends the worker its next job, so that the caller is already awake
    /// while the job is written. The job is assigned before, so that the caller's next call finds
    /// the worker either busy or idle.
    fn finish(&self, conn: &Arc<WorkerConn>, call: Call, result: Result<Incoming, CallError>) {
        let next = self.queue.lock().next_job(conn);
        call.answer(result);
        if let Some(assignment) = next {
            self.send(assignment);
        }
    }

    fn handle_failed_load(&self, conn: &Arc<WorkerConn>, program: &Program, call: Option<Call>, error: CallError) {
        self.load_finished(conn.worker.index, program.key, Err(error.clone()));
        let lacks_resources = match &error {
            CallError::Load { error, .. } => error.is_for_want_of_something(),
            error => matches!(error, CallError::Start(_)),
        };
        match call {
            // Another process may have the memory or the descriptors that this one lacks.
            Some(call) if lacks_resources && call.has_attempts_left() => self.retry_elsewhere(conn, call),
            Some(call) => self.finish(conn, call, Err(error)),
            None => self.send_next(conn),
        }
    }

    /// Requeues a call that this worker could not run. An idle worker gets it first, because this
    /// one becomes idle later.
    fn retry_elsewhere(&self, conn: &Arc<WorkerConn>, call: Call) {
        if let Some(assignment) = self.requeue(call) {
            self.send(assignment);
        }
        self.send_next(conn);
    }

    /// Retries the call that was in flight when the process ended, or answers it if it has no
    /// attempt left.
    pub(super) fn retry_or_fail(&self, worker: Worker, call: Call, exit: WorkerExit) {
        if call.is_cancelled() {
            return discard(call);
        }
        if self.is_aborting() {
            return fail_lost(call, worker, "the engine was aborted".to_owned());
        }
        // After the first item, the packet that was not received is one that wakes the worker.
        let delivery = if call.has_items() { Delivery::Received } else { exit.delivery };
        match delivery {
            Delivery::NotReceived => {
                if let Some(assignment) = self.requeue_undelivered(worker, call) {
                    self.send(assignment);
                }
            }
            Delivery::Received if call.has_attempts_left() => {
                // The last one is requeued first, since each goes to the front of the queue.
                for call in call.into_singles().into_iter().rev() {
                    if let Some(assignment) = self.requeue(call) {
                        self.send(assignment);
                    }
                }
            }
            Delivery::Received => fail_lost(call, worker, exit.how),
        }
    }

    pub(super) fn is_aborting(&self) -> bool {
        self.queue.lock().is_aborting()
    }

    /// Handles a reply that could not be decoded. Returns why the worker has to be replaced, if it
    /// has to.
    pub(super) fn handle_unreadable(&self, conn: &Arc<WorkerConn>, what: &str, reason: &str) -> Option<WorkerExit> {
        if conn.runs_bundle() {
            return self.handle_lost_result(conn, CallPart::named(what), reason);
        }
        self.handle_lost_message(conn, conn.take(), what, reason)
    }

    /// Handles a message to or from a worker that could not be decoded. The worker itself keeps
    /// running.
    fn handle_lost_message(
        &self,
        conn: &Arc<WorkerConn>,
        job: Option<InFlight<Call>>,
        what: &str,
        reason: &str,
    ) -> Option<WorkerExit> {
        match job {
            // The worker has not received the call, so it never ran.
            Some(InFlight::Call(call)) if what == ARGUMENTS && call.has_attempts_left() => {
                self.retry_elsewhere(conn, call);
                None
            }
            // The worker still runs the method, and is not ready for another call.
            Some(InFlight::Call(call)) if what != ARGUMENTS && call.reply.items().is_some() => {
                let (method, part) = (call.method.to_owned(), CallPart::named(what));
                call.answer(Err(CallError::Wire { method, part, reason: reason.to_owned() }));
                Some(WorkerExit::new(format!("an item of its stream was lost, and it was replaced: {reason}")))
            }
            Some(InFlight::Call(call)) => {
                let (method, part) = (call.method.to_owned(), CallPart::named(what));
                self.finish(conn, call, Err(CallError::Wire { method, part, reason: reason.to_owned() }));
                None
            }
            Some(InFlight::Load(program, call)) => {
                let error = start_error(conn.worker.index, &format!("the arena could not be sent: {reason}"));
                self.handle_failed_load(conn, &program, call, error);
                None
            }
            Some(InFlight::Bundle(_) | InFlight::Forget(_) | InFlight::ShutDown) | None => {
                Some(WorkerExit::new(format!("a message to or from it was lost, and it was replaced: {reason}")))
            }
        }
    }
}

/// Why a worker that has sent an item has to be replaced, if it has to.
fn item_exit(delivered: io::Result<bool>) -> Option<WorkerExit> {
    match delivered {
        Ok(true) => None,
        Ok(false) => Some(WorkerExit::new("it sent an item, although it runs no stream, and was replaced")),
        Err(error) => Some(WorkerExit::new(format!("its items could not be read, and it was replaced: {error}"))),
    }
}
