//! TODO.

use super::Engine;
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sys::entry::FnToken;
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::arena::memory::status::MemoryStatus;
use crate::tensor::copied::CopiedTensor;

/// A loaded program in a worker, as the worker reported it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// What could not be borrowed.
    pub copied: Vec<CopiedTensor>,
    /// From the arrival of the arena in the worker to the loaded pipeline, without the memory policy.
    pub took: Duration,
    /// How much of that went into the copied fields.
    pub decoding: Duration,
    /// What came of the memory policy in the worker, before the pipeline was loaded.
    pub memory: MemoryStatus,
}

/// What a worker needs to have before it can run calls: an arena, and the code that loads it.
pub(crate) struct Program {
    /// Tells programs apart within this process.
    pub key: u64,
    pub arena: Arena,
    pub loader: FnToken,
    pub device: String,
    pub strict: bool,
    pub memory: MemoryPolicy,
    /// What the wrapper has read out of the arena, so that each call need not read it again.
    pub cache: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Whose workers hold the program; they are told when nobody needs it any more.
    pub engine: OnceLock<Weak<dyn Engine>>,
}

impl Program {
    pub(crate) fn new(arena: Arena, loader: FnToken, device: String, strict: bool, memory: MemoryPolicy) -> Self {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        Self { key, arena, loader, device, strict, memory, cache: OnceLock::new(), engine: OnceLock::new() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.get().and_then(Weak::upgrade) {
            engine.forget(self.key);
        }
    }
}
