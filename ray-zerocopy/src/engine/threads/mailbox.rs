//! One thread of a pool, as its callers and the deadline thread see it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::Span;

use crate::engine::call::{Call, CallResult, Reply};
use crate::engine::queue::job::Job;
use crate::engine::queue::scheduler::PoolWorker;
use crate::engine::spin::spin;
use crate::error::call::{CallError, CallPhase, Worker};
use crate::os::sync::{Condvar, Mutex, now};

/// Hands a job to an idle thread, and ends the call of a running one.
pub(super) struct Mailbox {
    pub(super) worker: Worker,
    mail: Mutex<Mail>,
    /// Whether there is a job, for the spinning thread.
    has_job: AtomicBool,
    arrival: Condvar,
    running: Mutex<Option<Running>>,
    /// Whether the thread is in a call, which may have been answered.
    is_in_call: AtomicBool,
}

#[derive(Default)]
struct Mail {
    job: Option<Job<Call>>,
    /// Whether the thread sleeps, and has to be woken.
    is_asleep: bool,
}

/// What is needed to answer the running call.
pub(super) struct Running {
    pub(super) reply: Reply,
    pub(super) method: &'static str,
    pub(super) deadline: Option<(Instant, Duration)>,
}

impl Mailbox {
    pub(super) fn new(worker: Worker) -> Self {
        let (mail, has_job, arrival, running, is_in_call) = Default::default();
        Self { worker, mail, has_job, arrival, running, is_in_call }
    }

    /// Hands a job to the thread, which is idle.
    pub(super) fn put(&self, job: Job<Call>) {
        let is_asleep = {
            let mut mail = self.mail.lock();
            mail.job = Some(job);
            mail.is_asleep
        };
        // Set without the lock, which the spinning thread takes next.
        self.has_job.store(true, Ordering::Release);
        if is_asleep {
            self.arrival.notify_one();
        }
    }

    /// Waits for the next job. Called by the thread.
    pub(super) fn wait(&self) -> Job<Call> {
        spin(|| self.has_job.load(Ordering::Acquire));
        let mut mail = self.mail.lock();
        loop {
            if let Some(job) = mail.job.take() {
                self.has_job.store(false, Ordering::Relaxed);
                return job;
            }
            mail.is_asleep = true;
            mail = self.arrival.wait(mail, None);
            mail.is_asleep = false;
        }
    }

    /// Records the call that the thread runs from now on. Returns `false` if it need not run: its
    /// deadline has passed, and it is answered, or it has been cancelled.
    pub(super) fn begin(&self, running: Running) -> bool {
        // Recorded before the checks, so that the deadline thread finds the call if its deadline
        // passes after them.
        let has_deadline = running.deadline.is_some();
        let is_cancelled = {
            let mut slot = self.running.lock();
            slot.insert(running).reply.is_cancelled()
        };
        if is_cancelled {
            let cancelled = self.running.lock().take();
            drop(cancelled);
            return false;
        }
        if has_deadline && self.fail_if_late(CallPhase::Queued) {
            return false;
        }
        self.is_in_call.store(true, Ordering::Relaxed);
        true
    }

    /// Records that the method of the running call begins. Returns its span.
    pub(super) fn begins(&self) -> Span {
        let mut running = self.running.lock();
        let Some(Running { reply, .. }) = &mut *running else { return Span::none() };
        reply.begins();
        reply.sent_to(Some(self.worker));
        reply.method_span(self.worker)
    }

    /// Returns `true` if the thread runs a call for which no caller waits any more. Called by the
    /// thread.
    pub(super) fn is_cancelled(&self) -> bool {
        self.is_in_call.load(Ordering::Relaxed)
            && self.running.lock().as_ref().is_none_or(|running| running.reply.is_cancelled())
    }

    /// Answers the running call, unless it has been answered already.
    pub(super) fn finish(&self, result: CallResult) {
        self.is_in_call.store(false, Ordering::Relaxed);
        let running = self.running.lock().take();
        if let Some(Running { reply, .. }) = running {
            reply.send(result);
        }
    }

    /// Answers the running call if its deadline has passed. Returns `true` if it has.
    fn fail_if_late(&self, phase: CallPhase) -> bool {
        let now = now();
        let is_late = |running: &mut Running| matches!(running.deadline, Some((until, _)) if until <= now);
        let late = self.running.lock().take_if(is_late);
        let Some(Running { reply, method, deadline }) = late else { return false };
        let after = deadline.map_or(Duration::ZERO, |(_, after)| after);
        reply.send(Err(CallError::Deadline { method: method.to_owned(), after, phase }));
        true
    }

    /// Answers the running call, because the pool has been aborted.
    pub(super) fn abort(&self) {
        let running = self.running.lock().take();
        if let Some(Running { reply, method, .. }) = running {
            reply.send(Err(CallError::ShutDown { method: method.to_owned() }));
        }
    }
}

impl PoolWorker for Mailbox {
    fn index(&self) -> usize {
        self.worker.index
    }

    /// Answers the call. The thread cannot be stopped, and goes on until the method returns.
    fn expire(&self) {
        self.fail_if_late(CallPhase::Thread(self.worker));
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("worker", &self.worker).finish_non_exhaustive()
    }
}
