//! One call of a batch, its deadline and its caller.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::engine::call::{CallResult, Reply};
use crate::engine::message::Outgoing;
use crate::engine::sys::entry::FnToken;
use crate::error::call::{CallError, CallPhase};
use crate::os::sync::Mutex;

/// A call that may become part of a batch.
pub(crate) struct Member {
    pub(crate) args: Outgoing,
    /// The function that runs the call alone.
    pub(crate) handler: FnToken,
    pub(crate) size: Size,
    /// Calls of one batch have equal keys: the shapes of their rows, and their other arguments.
    pub(crate) key: Vec<u8>,
    pub(crate) caller: std::sync::Arc<Waiter>,
    pub(crate) since: Instant,
}

/// Size of a call, in the units of the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    /// The cost of the most expensive row.
    pub(crate) row_cost: usize,
}

/// The caller of a member. Answered once, by the first of the batch and the deadline.
pub(crate) struct Waiter {
    pub(crate) method: &'static str,
    pub(crate) deadline: Option<(Instant, Duration)>,
    reply: Mutex<Option<Reply>>,
    /// Whether the call has left the queue as part of a batch.
    is_in_batch: AtomicBool,
    /// The ticket that was filled with this call alone, or 0.
    ticket: AtomicU64,
}

impl Waiter {
    pub(crate) fn new(method: &'static str, deadline: Option<(Instant, Duration)>, reply: Reply) -> Self {
        let (is_in_batch, ticket) = Default::default();
        Self { method, deadline, reply: Mutex::new(Some(reply)), is_in_batch, ticket }
    }

    /// Answers the call, unless it has been answered.
    pub(crate) fn answer(&self, result: CallResult) {
        let reply = self.reply.lock().take();
        if let Some(reply) = reply {
            reply.send(result);
        }
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.reply.lock().is_none()
    }

    /// Answers the call with an error, because its deadline has passed.
    pub(crate) fn expire(&self) {
        let Some((_, after)) = self.deadline else { return };
        let phase = if self.is_in_batch.load(Ordering::Acquire) { CallPhase::Batch } else { CallPhase::Queued };
        self.answer(Err(CallError::Deadline { method: self.method.to_owned(), after, phase }));
    }

    pub(super) fn entered_batch(&self) {
        self.is_in_batch.store(true, Ordering::Release);
    }

    pub(super) fn sent_alone(&self, ticket: u64) {
        self.ticket.store(ticket, Ordering::Release);
    }

    /// Returns `true` if this ticket was filled with this call alone.
    pub(super) fn is_alone_in(&self, ticket: u64) -> bool {
        self.ticket.load(Ordering::Acquire) == ticket
    }
}
