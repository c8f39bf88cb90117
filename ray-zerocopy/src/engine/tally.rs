//! How the calls of a program have ended: counted where a caller gets its answer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of calls that have ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ended: AtomicU64,
    errors: AtomicU64,
}

impl Tally {
    /// Counts a call that has ended.
    pub(super) fn add(&self, is_error: bool) {
        if is_error {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// Begins to count, after a check of the program.
    pub(crate) fn reset(&self) {
        self.ended.store(0, Ordering::Relaxed);
        self.errors.store(0, Ordering::Relaxed);
    }

    /// Returns the number of calls that have ended, and how many of them with an error.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let ended = self.ended.load(Ordering::Acquire);
        (ended, self.errors.load(Ordering::Relaxed).min(ended))
    }
}
