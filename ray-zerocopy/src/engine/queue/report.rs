//! How a pool has grown and shrunk, and how it was drained.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::pool_size::PoolSize;

/// Number of workers of a pool, and how it has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolReport {
    /// Number of workers that are running now.
    pub workers: usize,
    /// Number of workers that the pool has at least.
    pub min: usize,
    /// Number of workers that the pool has at most.
    pub max: usize,
    /// How many workers have been started because calls waited.
    pub grown: u64,
    /// How many workers have ended because they were idle.
    pub shrunk: u64,
    /// How often the pool did not grow although calls waited.
    pub refused: u64,
    /// Why the pool did not grow, the last time that it did not.
    pub refusal: Option<String>,
}

/// Result of draining a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Drained {
    /// Number of calls that had no result within the timeout, and have failed. A batch counts as one.
    pub aborted: usize,
}

impl Drained {
    pub(crate) fn new(aborted: usize) -> Self {
        Self { aborted }
    }

    /// Returns `true` if every call has run.
    pub fn is_complete(self) -> bool {
        self.aborted == 0
    }
}

impl PoolReport {
    /// The report of a pool that has no workers here.
    pub(in crate::engine) fn empty(size: PoolSize) -> Self {
        let PoolSize { min, max } = size;
        Self { workers: 0, min, max, grown: 0, shrunk: 0, refused: 0, refusal: None }
    }
}

impl fmt::Display for PoolReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, min, max, grown, shrunk, refused, refusal } = self;
        write!(f, "pool: {workers} of {min} to {max} workers, {grown} started for waiting calls, {shrunk} ended idle")?;
        match refusal {
            Some(refusal) => write!(f, "; not grown {refused} times, last because {refusal}"),
            None => Ok(()),
        }
    }
}
