//! Where the result of a batch goes: to the callers of its calls.

use std::sync::Arc;

use tracing::Span;

use super::batcher::Batcher;
use super::member::Member;
use super::message;
use crate::engine::call::waiter::Waiter;
use crate::engine::call::{Call, CallResult, Reply};
use crate::engine::timer;
use crate::engine::trace::remote::CallContext;
use crate::engine::trace::spans::BatchTrace;
use crate::error::call::{CallError, CallPart, Worker};

/// The callers of a batch. Before a worker is free for it, a ticket: no callers yet.
pub(crate) struct BatchReply {
    batcher: Arc<Batcher>,
    ticket: u64,
    members: Vec<Member>,
    is_filled: bool,
    count: Option<RunningBatch>,
    /// The span of the worker, if one of the calls is traced.
    trace: Option<BatchTrace>,
}

impl BatchReply {
    /// Creates the reply of a ticket. If `is_counted`, the batcher is told when the batch has ended.
    pub(super) fn ticket(batcher: Arc<Batcher>, ticket: u64, is_counted: bool) -> Self {
        let count = is_counted.then(|| RunningBatch(Arc::clone(&batcher)));
        Self { batcher, ticket, members: Vec::new(), is_filled: false, count, trace: None }
    }

    /// Delivers the result of the batch.
    pub(crate) fn send(mut self, result: CallResult) {
        if !self.is_filled {
            self.is_filled = true;
            let method = || self.batcher.template.method.to_owned();
            let error = result.err().unwrap_or_else(|| CallError::ShutDown { method: method() });
            return self.batcher.fail_waiting(&error);
        }
        let members = std::mem::take(&mut self.members);
        // Ends before the spans of the calls.
        drop(self.trace.take());
        match result.map(message::take_apart) {
            Ok(Ok(parts)) if parts.len() == members.len() => {
                for (member, part) in members.into_iter().zip(parts) {
                    let method = member.caller.method;
                    member.caller.answer(part.map_err(|error| error.of(method, Default::default())));
                }
            }
            Ok(parts) => {
                let found = parts.map_or_else(|reason| reason, |parts| format!("{} results", parts.len()));
                let reason = format!("a batch of {} calls has {found}", members.len());
                self.fail(members, &self.wire_error(reason));
            }
            Err(error) if self.batcher.template.is_repeatable && self.is_of_a_call(&error) => {
                drop(self.count.take());
                // On Ray, the batch has used the attempts of its calls. One more shows which of them
                // is the cause.
                let allowed = if matches!(error, CallError::WorkerDied { .. }) { Some(1) } else { None };
                self.repeat(members, allowed);
            }
            Err(error) => self.fail(members, &error),
        }
    }

    /// Records that the batch is sent to a worker.
    pub(crate) fn begins(&self) {
        for member in &self.members {
            member.caller.begins();
        }
    }

    /// Records that the batch is about to be sent to a worker, which is unknown on Ray.
    pub(crate) fn sent_to(&mut self, worker: Option<Worker>) {
        let traces = self.members.iter().filter_map(|member| member.caller.trace());
        self.trace = BatchTrace::begin(traces, worker);
    }

    /// Records that the batch waits for a worker again.
    pub(crate) fn requeued(&mut self) {
        drop(self.trace.take());
        for member in &self.members {
            member.caller.requeued();
        }
    }

    /// What a worker process is told of the batch, if it is traced.
    pub(crate) fn context(&self, worker: Option<usize>) -> Option<CallContext> {
        let trace = self.trace.as_ref()?;
        let first = self.members.iter().find(|member| member.caller.trace().is_some())?;
        trace.context(first.caller.method, first.caller.model(), worker)
    }

    /// The span of the method, which runs in a thread of this process.
    pub(crate) fn method_span(&self, worker: Worker) -> Span {
        let first = self.members.iter().find(|member| member.caller.trace().is_some());
        let span = |(trace, first): (&BatchTrace, &Member)| {
            trace.method_span(first.caller.method, first.caller.model(), worker)
        };
        self.trace.as_ref().zip(first).map_or_else(Span::none, span)
    }

    /// Returns `true` if all callers have cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_filled && self.members.iter().all(|member| member.caller.is_answered())
    }

    /// The longest grace period of the callers. `None` if one of them has none.
    pub(crate) fn grace(&self) -> Option<std::time::Duration> {
        let graces: Option<Vec<_>> = self.members.iter().map(|member| member.caller.grace).collect();
        graces?.into_iter().max()
    }

    /// Returns `true` if one of the calls may have caused the error, and the others may not have it.
    fn is_of_a_call(&self, error: &CallError) -> bool {
        match error {
            CallError::Panicked { .. } | CallError::Wire { .. } | CallError::Graph { .. } => true,
            // An engine with a queue has repeated the calls one by one already.
            CallError::WorkerDied { is_actor, allowed, .. } => {
                !is_actor && *allowed > 1 && self.batcher.engine.batches_at_once().is_some()
            }
            _ => false,
        }
    }

    fn wire_error(&self, reason: String) -> CallError {
        CallError::Wire { method: self.batcher.template.method.to_owned(), part: CallPart::Result, reason }
    }

    fn fail(&self, members: Vec<Member>, error: &CallError) {
        for member in members {
            member.caller.answer(Err(error.clone()));
        }
    }

    /// Runs the calls of a batch that has failed one by one, so that the error is that of the call
    /// that caused it.
    fn repeat(&self, members: Vec<Member>, allowed: Option<u32>) {
        for Member { args, handler, caller, .. } in members {
            if !caller.is_answered() {
                caller.left_batch();
                let deadline = caller.deadline;
                let call = self.batcher.call(handler, args, Reply::Waiter(caller, None));
                let allowed = allowed.unwrap_or(call.allowed);
                // Drops the right to receive the result.
                drop(self.batcher.submit_admitted(Call { deadline, allowed, ..call }));
            }
        }
    }
}

impl Drop for BatchReply {
    fn drop(&mut self) {
        if !self.is_filled {
            let method = self.batcher.template.method.to_owned();
            self.batcher.fail_waiting(&CallError::ShutDown { method });
        }
    }
}

/// A batch that an engine without a queue of its own runs. Dropping it lets the next one start.
pub(crate) struct RunningBatch(Arc<Batcher>);

impl Drop for RunningBatch {
    fn drop(&mut self) {
        let batcher = Arc::clone(&self.0);
        let ended = move || batcher.batch_ended();
        // Results may be delivered on a thread of Ray, which must not submit.
        match timer::shared() {
            Ok(timer) => timer.spawn(ended),
            Err(_) => ended(),
        }
    }
}

impl Call {
    /// Returns `true` if this is a ticket that has not been filled.
    pub(crate) fn is_ticket(&self) -> bool {
        matches!(&self.reply, Reply::Batch(batch) if !batch.is_filled)
    }

    /// Returns `true` if this is a batch of several calls.
    pub(crate) fn is_batch(&self) -> bool {
        matches!(&self.reply, Reply::Batch(_))
    }

    /// Fills a ticket with the calls that wait for it. Returns `false` if there are none, and the
    /// ticket is void. Other calls are left as they are.
    pub(crate) fn fill(&mut self) -> bool {
        let Reply::Batch(batch) = &mut self.reply else { return true };
        if batch.is_filled {
            return true;
        }
        batch.is_filled = true;
        let mut members = batch.batcher.take(batch.ticket);
        if members.len() < 2 {
            let count = batch.count.take();
            let Some(Member { args, handler, caller, .. }) = members.pop() else { return false };
            (self.args, self.handler, self.deadline) = (args, handler, caller.deadline);
            self.reply = Reply::Waiter(caller, count);
            return true;
        }
        let parts = members.iter().map(|member| Ok(member.args.clone())).collect();
        match message::join(parts) {
            Ok(args) => {
                self.args = args;
                self.deadline = latest_deadline(members.iter().map(|member| &*member.caller));
                batch.members = members;
                true
            }
            Err(reason) => {
                let error = batch.wire_error(reason);
                batch.fail(members, &error);
                false
            }
        }
    }

    /// Splits a batch whose worker has died into its calls, which have the batch's attempts. One of
    /// them may be what killed the worker, and must not take the others with it.
    pub(crate) fn into_singles(self) -> Vec<Self> {
        match self.reply {
            Reply::Batch(mut batch) if batch.is_filled => {
                let members = std::mem::take(&mut batch.members);
                let members = members.into_iter().filter(|member| !member.caller.is_answered());
                let single = |Member { args, handler, caller, .. }: Member| {
                    caller.left_batch();
                    Self {
                        program: Arc::clone(&self.program),
                        deadline: caller.deadline,
                        handler,
                        args,
                        reply: Reply::Waiter(caller, None),
                        ..self
                    }
                };
                members.map(single).collect()
            }
            reply => vec![Self { reply, ..self }],
        }
    }
}

/// The deadline of a batch: that of its last call. `None` if a call has none, since it needs the
/// worker.
fn latest_deadline<'a>(callers: impl Iterator<Item = &'a Waiter>) -> Option<(std::time::Instant, std::time::Duration)> {
    let deadlines: Option<Vec<_>> = callers.map(|caller| caller.deadline).collect();
    deadlines?.into_iter().max()
}
