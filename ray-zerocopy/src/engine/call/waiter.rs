//! The caller of a call: it gets one result, and may cancel the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::Span;

use super::CallResult;
use super::items::Items;
use crate::engine::figures::outcome::Outcome;
use crate::engine::tally::Tally;
use crate::engine::trace::remote::CallContext;
use crate::engine::trace::spans::CallTrace;
use crate::error::call::{CallError, CallPhase, Worker};
use crate::os::sync::Mutex;
use crate::panics;

/// A number that no ticket has.
const ALONE: u64 = u64::MAX;

/// How a call is observed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Observed {
    /// The time at which it is made, if it is measured.
    pub(crate) made: Option<Instant>,
    /// Whether it has spans, if calls are traced.
    pub(crate) is_traced: bool,
}

/// The caller of a call. The first of the worker's reply, the deadline and a cancellation answers it.
pub(crate) struct Waiter {
    pub(crate) method: &'static str,
    pub(crate) deadline: Option<(Instant, Duration)>,
    /// Time for which a worker may go on with the call after it has been cancelled. Without it, the
    /// worker is not killed.
    pub(crate) grace: Option<Duration>,
    /// The items of the call, if it returns a stream. They arrive before the result.
    pub(crate) items: Option<Arc<Items>>,
    reply: Mutex<Option<oneshot::Sender<CallResult>>>,
    /// The calls among which it is counted.
    tally: Arc<Tally>,
    /// When the call was made, if it is measured.
    made: Option<Instant>,
    /// Nanoseconds from then until it was last sent to a worker, or 0.
    begun: AtomicU64,
    /// Its spans, if it is traced.
    trace: Option<Box<CallTrace>>,
    is_cancelled: AtomicBool,
    /// Whether the call has left the queue as part of a batch.
    is_in_batch: AtomicBool,
    /// The ticket of a batch that was filled with this call alone, [`ALONE`] if it has left a batch
    /// that failed, or 0.
    ticket: AtomicU64,
}

impl Waiter {
    /// Returns the caller, and the receiver of its result.
    pub(crate) fn new(
        method: &'static str,
        deadline: Option<(Instant, Duration)>,
        grace: Option<Duration>,
        items: Option<Arc<Items>>,
        tally: &Arc<Tally>,
        Observed { made, is_traced }: Observed,
    ) -> (Arc<Self>, oneshot::Receiver<CallResult>) {
        let (sender, receiver) = oneshot::channel();
        let (begun, is_cancelled, is_in_batch, ticket) = Default::default();
        let (reply, tally) = (Mutex::new(Some(sender)), Arc::clone(tally));
        if made.is_some() {
            tally.methods.of(method).made();
        }
        let trace = if is_traced { CallTrace::begin(method, tally.labels()) } else { None };
        let waiter = Self {
            method,
            deadline,
            grace,
            items,
            reply,
            tally,
            made,
            begun,
            trace,
            is_cancelled,
            is_in_batch,
            ticket,
        };
        (Arc::new(waiter), receiver)
    }

    /// Answers the call, unless it has been answered. A caller that has stopped waiting is ignored.
    pub(crate) fn answer(&self, result: CallResult) {
        let reply = self.reply.lock().take();
        if let Some(items) = &self.items {
            items.close();
        }
        if let Some(reply) = reply {
            // The end of a cancelled call says nothing about its program.
            if !matches!(result, Err(CallError::Cancelled { .. })) {
                self.tally.add(result.is_err());
            }
            self.record(Outcome::of(&result));
            // Sending wakes the caller, which runs user code. A panic in it must not take the engine
            // down.
            panics::caught(move || drop(reply.send(result))).ok();
        }
    }

    /// Records that the call is sent to a worker.
    pub(crate) fn begins(&self) {
        let Some(made) = self.made else { return };
        let nanos = u64::try_from(made.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        // Under the lock of the answer, after which no more is recorded.
        let reply = self.reply.lock();
        if reply.is_some() && self.begun.swap(nanos, Ordering::Relaxed) == 0 {
            self.tally.methods.of(self.method).begun();
        }
    }

    /// Records that the call is about to be sent to a worker, which is unknown on Ray.
    pub(crate) fn sent_to(&self, worker: Option<Worker>) {
        if let Some(trace) = &self.trace {
            trace.sent(worker);
        }
    }

    /// Records that the call waits for a worker again.
    pub(crate) fn requeued(&self) {
        if let Some(trace) = &self.trace {
            trace.requeued();
        }
    }

    /// What a worker process is told of the call, if it is traced.
    pub(crate) fn context(&self, worker: Option<usize>) -> Option<CallContext> {
        self.trace.as_ref()?.context(self.method, self.model(), worker)
    }

    /// The span of the method, which runs in a thread of this process.
    pub(crate) fn method_span(&self, worker: Worker) -> Span {
        let span = |trace: &CallTrace| trace.method_span(self.method, self.model(), worker);
        self.trace.as_deref().map_or_else(Span::none, span)
    }

    /// The spans of the call, if it is traced.
    pub(super) fn trace(&self) -> Option<&CallTrace> {
        self.trace.as_deref()
    }

    /// Name of the pipeline.
    pub(super) fn model(&self) -> &str {
        self.tally.labels().pipeline
    }

    /// Records how the call has ended. Called once.
    fn record(&self, outcome: Outcome) {
        if let Some(trace) = &self.trace {
            trace.ended(outcome, self.tally.labels().generation);
        }
        if let Some(made) = self.made {
            let begun = Some(self.begun.load(Ordering::Relaxed)).filter(|nanos| *nanos > 0);
            self.tally.call_ended(self.method, outcome, made, begun.map(Duration::from_nanos));
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.reply.lock().is_none()
    }

    /// Cancels the call. The engine has to be told afterwards.
    pub(crate) fn cancel(&self) {
        // Set before the engine looks for the call, so that a thread which has the call in its hands
        // meanwhile finds out.
        self.is_cancelled.store(true, Ordering::Release);
        self.answer(Err(CallError::Cancelled { method: self.method.to_owned() }));
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    /// Answers the call with an error, because its deadline has passed. Does nothing if it runs alone:
    /// then its engine ends it, and knows the worker.
    pub(crate) fn expire(&self) {
        let Some((_, after)) = self.deadline else { return };
        if self.ticket.load(Ordering::Acquire) != 0 {
            return;
        }
        let phase = if self.is_in_batch.load(Ordering::Acquire) { CallPhase::Batch } else { CallPhase::Queued };
        self.answer(Err(CallError::Deadline { method: self.method.to_owned(), after, phase }));
    }

    pub(super) fn entered_batch(&self) {
        self.is_in_batch.store(true, Ordering::Release);
    }

    /// Records that the call runs again alone, after its batch has failed.
    pub(super) fn left_batch(&self) {
        self.requeued();
        self.ticket.store(ALONE, Ordering::Release);
    }

    pub(super) fn sent_alone(&self, ticket: u64) {
        self.ticket.store(ticket, Ordering::Release);
    }

    /// Returns `true` if the call does not wait for a batch any more.
    pub(super) fn has_left_queue(&self) -> bool {
        self.is_in_batch.load(Ordering::Acquire) || self.ticket.load(Ordering::Acquire) != 0
    }

    /// Returns `true` if this ticket was filled with this call alone.
    pub(super) fn is_alone_in(&self, ticket: u64) -> bool {
        self.ticket.load(Ordering::Acquire) == ticket
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if !self.is_answered() {
            // Its caller gets the error that the result is lost.
            self.record(Outcome::Lost);
        }
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("method", &self.method).finish_non_exhaustive()
    }
}
