//! What owner and worker say to each other. One thing at a time: every request but the last has one answer, and the next
//! request comes after it. Both carry the request's number, so that no answer is ever taken for another's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EntryToken;
use super::frame::parse;
use crate::arena::Handle;
use crate::arena::memory::{Memory, MemoryOutcome};
use crate::engine::message::{Incoming, aligned};
use crate::jit::ReplayError;
use crate::pipeline::{Copied, LoadError};

/// Owner → worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Load a program; its arena's file descriptors come along.
    Load { key: u64, loader: EntryToken, device: String, strict: bool, memory: Memory, arena: Handle },
    /// Run a method of a loaded program; the arguments come along.
    Call { key: u64, handler: EntryToken },
    /// Free a program.
    Forget { key: u64 },
    /// End.
    ShutDown,
}

/// Worker → owner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The process is up.
    Ready,
    /// The process is up, but cannot work: why.
    NotReady(String),
    Loaded {
        copied: Vec<Copied>,
        took: Duration,
        decoding: Duration,
        memory: MemoryOutcome,
    },
    NotLoaded(LoadError),
    /// The result comes along.
    Done,
    Failed(Failure),
    /// The program is freed.
    Forgotten,
    /// A request arrived that could not be read: why. The worker is well.
    Unreadable(String),
    /// Code of the worker panics: message and place. Not an answer: one comes if the process outlives the panic.
    Panics(String),
}

/// Why a method has no result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Failure {
    Panicked(String),
    /// The arguments or the result could not be turned into values or bytes.
    Wire {
        what: String,
        reason: String,
    },
    /// The graph did not run.
    Graph(ReplayError),
}

/// Reads a frame as one of the messages above, for tests with hostile bytes.
pub(crate) fn any(kind: u8, frame: &[u8]) -> std::io::Result<Incoming> {
    let frame = aligned(frame);
    match kind & 3 {
        0 => parse::<(u64, Request)>(&frame).map(|(_, payload)| payload),
        1 => parse::<(u64, Answer)>(&frame).map(|(_, payload)| payload),
        _ => parse::<(String, i32)>(&frame).map(|(_, payload)| payload),
    }
}
