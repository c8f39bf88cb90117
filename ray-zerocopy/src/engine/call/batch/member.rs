//! One call of a batch.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::call::waiter::Waiter;
use crate::engine::message::Outgoing;
use crate::engine::sys::entry::FnToken;

/// A call that may become part of a batch.
pub(crate) struct Member {
    pub(crate) args: Outgoing,
    /// The function that runs the call alone.
    pub(crate) handler: FnToken,
    pub(crate) size: Size,
    /// Calls of one batch have equal keys: the shapes of their rows, and their other arguments.
    pub(crate) key: Vec<u8>,
    pub(crate) caller: Arc<Waiter>,
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
