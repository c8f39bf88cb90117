//! The spans of a call and of a batch.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::remote::CallContext;
use super::{TARGET, is_on};
use crate::engine::figures::method::Labels;
use crate::engine::figures::outcome::Outcome;
use crate::error::call::Worker;
use crate::os::sync::Mutex;

/// A call that is traced.
#[derive(Debug)]
pub(crate) struct CallTrace {
    /// Number of the call in this process.
    id: u64,
    /// `None` when it has been answered.
    spans: Mutex<Option<Spans>>,
}

#[derive(Debug)]
struct Spans {
    call: Span,
    /// What the call waits for: `queue`, `batch` or `worker`.
    stage: Span,
    is_queued: bool,
}

impl CallTrace {
    /// Begins the spans `call` and `queue`, as part of the caller's span. Returns `None` if calls are not traced.
    pub(crate) fn begin(method: &'static str, labels: Labels<'_>) -> Option<Box<Self>> {
        static CALLS: AtomicU64 = AtomicU64::new(1);
        if !is_on() {
            return None;
        }
        let id = CALLS.fetch_add(1, Ordering::Relaxed);
        let call = info_span!(
            target: TARGET,
            "call",
            call = id,
            method,
            model = labels.pipeline,
            engine = labels.engine,
            generation = labels.generation,
            outcome = Empty,
            otel.status_code = Empty,
        );
        let stage = queue_span(&call);
        Some(Box::new(Self { id, spans: Mutex::new(Some(Spans { call, stage, is_queued: true })) }))
    }

    /// Begins another stage, if the call has no answer.
    fn enter(&self, is_queued: bool, next: impl FnOnce(&Span) -> Span) {
        let before = {
            let mut spans = self.spans.lock();
            let Some(spans) = &mut *spans else { return };
            let next = next(&spans.call);
            spans.is_queued = is_queued;
            std::mem::replace(&mut spans.stage, next)
        };
        // Without the lock: it runs code of the subscriber.
        drop(before);
    }

    /// Records that the call is sent to a worker, which is unknown on Ray.
    pub(crate) fn sent(&self, worker: Option<Worker>) {
        self.enter(false, |call| worker_span(call, worker));
    }

    /// Records that the call waits for a worker again.
    pub(crate) fn requeued(&self) {
        if self.spans.lock().as_ref().is_some_and(|spans| !spans.is_queued) {
            self.enter(true, queue_span);
        }
    }

    /// Records the answer, and ends the spans.
    pub(crate) fn ended(&self, outcome: Outcome, generation: &'static str) {
        let Some(Spans { call, stage, .. }) = self.spans.lock().take() else { return };
        drop(stage);
        call.record("outcome", outcome.name());
        call.record("generation", generation);
        if outcome != Outcome::Ok {
            call.record("otel.status_code", "ERROR");
        }
    }

    /// The span of what the call waits for.
    fn stage(&self) -> Option<Span> {
        self.spans.lock().as_ref().map(|spans| spans.stage.clone())
    }

    /// The span of the method, which runs in a thread of this process.
    pub(crate) fn method_span(&self, method: &'static str, model: &str, worker: Worker) -> Span {
        self.stage().map_or_else(Span::none, |stage| method_span(&stage, self.id, method, model, worker))
    }

    /// What the worker process is told of the call.
    pub(crate) fn context(&self, method: &'static str, model: &str, worker: Option<usize>) -> Option<CallContext> {
        CallContext::new(&self.stage()?, self.id, method, model, worker)
    }
}

fn queue_span(call: &Span) -> Span {
    info_span!(target: TARGET, parent: call, "queue")
}

fn worker_span(parent: &Span, worker: Option<Worker>) -> Span {
    match worker {
        Some(Worker { index, pid }) => info_span!(target: TARGET, parent: parent, "worker", worker = index, pid),
        None => info_span!(target: TARGET, parent: parent, "worker"),
    }
}

fn method_span(parent: &Span, call: u64, method: &'static str, model: &str, worker: Worker) -> Span {
    let Worker { index: worker, pid } = worker;
    info_span!(target: TARGET, parent: parent, "method", call, method, model, worker, pid)
}

/// The span of the worker that runs a batch. It is part of the trace of the batch's first call.
#[derive(Debug)]
pub(crate) struct BatchTrace {
    /// Number of the first call.
    first: u64,
    worker: Span,
}

impl BatchTrace {
    /// Begins the span `batch` of each call, and that of the worker. The spans of a batch are linked: that of the
    /// first call to the other calls, and theirs to that of the first.
    pub(crate) fn begin<'a>(
        calls: impl Iterator<Item = &'a CallTrace> + Clone,
        worker: Option<Worker>,
    ) -> Option<Self> {
        let first = calls.clone().next()?;
        let size = calls.clone().count();
        let ids: Vec<_> = calls.clone().map(|call| call.id).collect();
        first.enter(
            false,
            |call| info_span!(target: TARGET, parent: call, "batch", batch = first.id, size, calls = ?ids),
        );
        // A call that has been answered meanwhile has no span.
        let leader = first.stage().unwrap_or_else(Span::none);
        for call in calls.skip(1) {
            if let Some(spans) = &*call.spans.lock() {
                leader.follows_from(&spans.call);
            }
            call.enter(false, |call| {
                let span = info_span!(target: TARGET, parent: call, "batch", batch = first.id, size);
                span.follows_from(&leader);
                span
            });
        }
        Some(Self { first: first.id, worker: worker_span(&leader, worker) })
    }

    /// The span of the method, which runs in a thread of this process.
    pub(crate) fn method_span(&self, method: &'static str, model: &str, worker: Worker) -> Span {
        method_span(&self.worker, self.first, method, model, worker)
    }

    /// What the worker process is told of the batch, which is part of its first call.
    pub(crate) fn context(&self, method: &'static str, model: &str, worker: Option<usize>) -> Option<CallContext> {
        CallContext::new(&self.worker, self.first, method, model, worker)
    }
}
