//! How a pool has grown and shrunk, for reports.

use std::fmt;

use serde::{Deserialize, Serialize};

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
