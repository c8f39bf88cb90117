//! What owner and worker say to each other. One thing at a time: every request but the last has one answer, and the next
//! request comes after it. Both carry the request's number, so that no answer is ever taken for another's.

use crate::engine::served::MethodError;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::arena::handle::Handle;
use crate::arena::memory::policy::MemoryPolicy;
use crate::arena::memory::status::MemoryStatus;
use crate::engine::frame::parse;
use crate::engine::message::Incoming;
use crate::engine::sys::entry::FnToken;
use crate::error::load::LoadError;
use crate::tensor::align::aligned;
use crate::tensor::copied::CopiedTensor;

/// Owner → worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Load a program; its arena's file descriptors come along.
    Load { key: u64, loader: FnToken, device: String, strict: bool, memory: MemoryPolicy, arena: Handle },
    /// Run a method of a loaded program; the arguments come along.
    Call { key: u64, handler: FnToken },
    /// Free a program.
    Forget { key: u64 },
    /// End.
    ShutDown,
}

/// Worker → owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The process is up.
    Ready,
    /// The process is up, but cannot work: why.
    NotReady(String),
    Loaded {
        copied: Vec<CopiedTensor>,
        took: Duration,
        decoding: Duration,
        memory: MemoryStatus,
    },
    NotLoaded(LoadError),
    /// The result comes along.
    Done,
    Failed(MethodError),
    /// The program is freed.
    Forgotten,
    /// A request arrived that could not be read: why. The worker is well.
    Unreadable(String),
    /// Code of the worker panics: message and place. Not an answer: one comes if the process outlives the panic.
    Panics(String),
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
