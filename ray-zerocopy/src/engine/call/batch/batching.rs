//! `Batching`: the limits of a batch.

use std::time::Duration;

/// Limits of the batches into which calls are put together. See
/// [`TaskWrapper::batch`](crate::TaskWrapper::batch).
///
/// A call that is larger than a limit runs alone.
///
/// ```
/// use std::time::Duration;
///
/// use ray_zerocopy::Batching;
///
/// let batching = Batching::default().max_rows(32).max_cost(4096);
/// let patient = batching.max_wait(Duration::from_millis(5));
/// # let _ = patient;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) cost: usize,
    pub(crate) wait: Duration,
}

impl Default for Batching {
    /// At most 64 rows, and no waiting while a worker is idle.
    fn default() -> Self {
        Self { rows: 64, bytes: usize::MAX, cost: usize::MAX, wait: Duration::ZERO }
    }
}

impl Batching {
    /// Limits the number of rows: items of a `Vec`, or rows of a tensor. Default: 64.
    #[must_use]
    pub fn max_rows(self, rows: usize) -> Self {
        Self { rows: rows.max(1), ..self }
    }

    /// Limits the size of the arguments in bytes. Default: no limit.
    #[must_use]
    pub fn max_bytes(self, bytes: usize) -> Self {
        Self { bytes: bytes.max(1), ..self }
    }

    /// Limits the cost: the number of rows times the cost of the most expensive row, which is what
    /// a batch costs whose rows are padded to the same length. The cost of a row is given by
    /// `#[remote(batch, cost = function)]`; without it, each row costs 1. Default: no limit.
    #[must_use]
    pub fn max_cost(self, cost: usize) -> Self {
        Self { cost: cost.max(1), ..self }
    }

    /// Lets a call wait for others, although a worker is idle, until the batch is full or this time
    /// has passed. Default: zero.
    #[must_use]
    pub fn max_wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }
}
