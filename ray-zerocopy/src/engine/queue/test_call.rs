//! Calls and connections of the unit tests: plain numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Attempts, QueuedCall};
use super::scheduler::PoolWorker;

/// A call without content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct TestCall {
    pub(in crate::engine) id: u32,
    /// The program's key.
    pub(in crate::engine) program: Arc<u64>,
    pub(in crate::engine) pinned: Option<usize>,
    pub(in crate::engine) deadline: Option<Instant>,
    pub(in crate::engine) made: u32,
    pub(in crate::engine) undelivered: u32,
    pub(in crate::engine) cancelled: bool,
    /// Size of its arguments, if it may be part of a bundle.
    pub(in crate::engine) size: Option<usize>,
}

impl TestCall {
    /// The grace period of a cancelled call.
    pub(in crate::engine) const GRACE: Duration = Duration::from_secs(3);

    /// Maximum number of attempts.
    pub(in crate::engine) const ALLOWED: u32 = 2;

    pub(in crate::engine) fn new(id: u32) -> Self {
        Self {
            id,
            program: Arc::new(1),
            pinned: None,
            deadline: None,
            made: 0,
            undelivered: 0,
            cancelled: false,
            size: None,
        }
    }

    pub(in crate::engine) fn of_program(self, key: u64) -> Self {
        Self { program: Arc::new(key), ..self }
    }

    pub(in crate::engine) fn pinned_to(self, index: usize) -> Self {
        Self { pinned: Some(index), ..self }
    }

    pub(in crate::engine) fn of_bytes(self, size: usize) -> Self {
        Self { size: Some(size), ..self }
    }

    pub(in crate::engine) fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

impl QueuedCall for TestCall {
    type Program = u64;

    fn program(&self) -> &Arc<u64> {
        &self.program
    }

    fn program_key(&self) -> u64 {
        *self.program
    }

    fn pinned_to(&self) -> Option<usize> {
        self.pinned
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn attempts(&mut self) -> Attempts<'_> {
        Attempts { made: &mut self.made, allowed: Self::ALLOWED, undelivered: &mut self.undelivered }
    }

    fn bundled_size(&self) -> Option<usize> {
        self.size
    }

    fn is_admitted(&self) -> bool {
        false
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    fn limit_to_grace(&mut self, now: Instant) -> Option<Instant> {
        self.deadline = Some(now + Self::GRACE);
        self.deadline
    }

    fn has_attempts_left(&self) -> bool {
        self.made < Self::ALLOWED
    }
}

/// A connection without a socket: the worker's index.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::engine) struct TestConn(pub(in crate::engine) usize);

impl PoolWorker for TestConn {
    fn index(&self) -> usize {
        self.0
    }

    fn expire(&self) {}

    const TAKES_BUNDLES: bool = true;
}
