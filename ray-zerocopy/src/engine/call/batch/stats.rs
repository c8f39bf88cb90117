//! Sizes and waiting times of batches, for reports.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::member::Member;

/// Batches of one method that have been sent to workers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BatchReport {
    /// The method.
    pub method: String,
    /// Number of batches, including those of a single call.
    pub batches: u64,
    /// Number of calls in them.
    pub calls: u64,
    /// Number of rows in them.
    pub rows: u64,
    /// Number of rows of the largest batch.
    pub largest: u64,
    /// Sum of the times that the calls have waited for their batch.
    pub waited: Duration,
    /// The longest of these times.
    pub longest_wait: Duration,
}

impl BatchReport {
    /// Mean number of rows of a batch.
    pub fn mean_rows(&self) -> f64 {
        self.rows as f64 / self.batches.max(1) as f64
    }

    /// Mean time that a call has waited for its batch.
    pub fn mean_wait(&self) -> Duration {
        self.waited.div_f64(self.calls.max(1) as f64)
    }

    /// Adds a batch that is about to be sent.
    pub(super) fn add(&mut self, members: &[Member]) {
        let rows = members.iter().map(|member| member.size.rows as u64).sum();
        self.batches += 1;
        self.calls += members.len() as u64;
        self.rows += rows;
        self.largest = self.largest.max(rows);
        for member in members {
            let waited = member.since.elapsed();
            self.waited += waited;
            self.longest_wait = self.longest_wait.max(waited);
        }
    }
}

impl fmt::Display for BatchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "batches of `{}`: {}, {:.1} rows on average, {} at most; {} calls, which waited {:.1?} on average, {:.1?} at most",
            self.method,
            self.batches,
            self.mean_rows(),
            self.largest,
            self.calls,
            self.mean_wait(),
            self.longest_wait
        )
    }
}
