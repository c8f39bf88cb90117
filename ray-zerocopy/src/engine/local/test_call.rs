//! Calls and connections of the unit tests: plain numbers.

use std::sync::Arc;
use std::time::Instant;

use super::job::{Attempts, QueuedCall};
use super::scheduler::Indexed;

/// A call without content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestCall {
    pub(super) id: u32,
    /// The program's key.
    pub(super) program: Arc<u64>,
    pub(super) pinned: Option<usize>,
    pub(super) deadline: Option<Instant>,
    pub(super) made: u32,
    pub(super) undelivered: u32,
}

impl TestCall {
    /// Maximum number of attempts.
    pub(super) const ALLOWED: u32 = 2;

    pub(super) fn new(id: u32) -> Self {
        Self { id, program: Arc::new(1), pinned: None, deadline: None, made: 0, undelivered: 0 }
    }

    pub(super) fn of_program(self, key: u64) -> Self {
        Self { program: Arc::new(key), ..self }
    }

    pub(super) fn pinned_to(self, index: usize) -> Self {
        Self { pinned: Some(index), ..self }
    }

    pub(super) fn until(self, deadline: Instant) -> Self {
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

    fn has_attempts_left(&self) -> bool {
        self.made < Self::ALLOWED
    }
}

/// A connection without a socket: the worker's index.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TestConn(pub(super) usize);

impl Indexed for TestConn {
    fn index(&self) -> usize {
        self.0
    }
}
