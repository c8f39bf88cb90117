//! How the calls on one generation of weights have ended.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::arena::manifest::ArenaId;
use crate::engine::program::Program;
use crate::os::byte_size::mib;

/// Calls of a wrapper on one generation of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GenerationReport {
    /// The weights.
    pub arena: ArenaId,
    /// The size of the arena in bytes.
    pub bytes: u64,
    /// Number of calls that have ended since the weights got calls, without cancelled ones.
    pub calls: u64,
    /// How many of them ended with an error of the call, such as a panic or a missed deadline. An `Err` that
    /// a method returns is a result.
    pub errors: u64,
}

impl GenerationReport {
    pub(crate) fn of(program: &Program) -> Self {
        let (calls, errors) = program.tally.counts();
        Self { arena: program.arena.id(), bytes: program.arena.size_bytes(), calls, errors }
    }
}

impl fmt::Display for GenerationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arena, bytes, calls, errors } = self;
        write!(f, "weights {arena} ({} MiB): {calls} calls, {errors} errors", mib(*bytes))
    }
}
