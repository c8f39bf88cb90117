//! Programs: what a worker loads before it runs calls.

use super::Engine;
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ray_zerocopy_kernels::Isa;
use serde::{Deserialize, Serialize};

use super::served::Prewarm;
use super::sys::entry::FnToken;
use super::tally::Tally;
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::arena::memory::status::MemoryStatus;
use crate::tensor::copied::{CopiedTensor, DeviceMemory};

/// Report of a worker that has loaded a program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// Tensors that were copied instead of borrowed.
    pub copied: Vec<CopiedTensor>,
    /// The weights in the memory of the worker's device.
    pub device: Option<DeviceMemory>,
    /// Time from the arrival of the arena in the worker to the loaded pipeline, without the memory
    /// policy.
    pub took: Duration,
    /// The part of `took` that was spent on the copied fields.
    pub decoding: Duration,
    /// Result of applying the memory policy in the worker, before the pipeline was loaded.
    pub memory: MemoryStatus,
    /// The instructions that compiled graphs use in the worker, if it has loaded one.
    pub instructions: Option<String>,
}

impl Attached {
    /// The instructions that compiled graphs use in this process, if it has loaded one.
    pub(crate) fn instructions() -> Option<String> {
        Isa::in_use().map(|isa| isa.to_string())
    }
}

/// An arena, and the code that loads it. A worker loads it before it runs calls.
pub(crate) struct Program {
    /// Id of the program, unique within this process.
    pub key: u64,
    pub arena: Arena,
    pub loader: FnToken,
    pub device: String,
    pub strict: bool,
    pub memory: MemoryPolicy,
    /// What a worker runs when it has loaded the program.
    pub prewarm: Option<Prewarm>,
    /// Data that the wrapper has read from the arena, so that a call does not read it again.
    pub cache: OnceLock<Box<dyn Any + Send + Sync>>,
    /// How its calls have ended.
    pub tally: Arc<Tally>,
    /// The engine whose workers hold the program. It is notified when the program is dropped.
    pub engine: OnceLock<Weak<dyn Engine>>,
}

impl Program {
    pub(crate) fn new(arena: Arena, loader: FnToken, device: String, strict: bool, memory: MemoryPolicy) -> Self {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        Self {
            key,
            arena,
            loader,
            device,
            strict,
            memory,
            prewarm: None,
            cache: OnceLock::new(),
            tally: Arc::default(),
            engine: OnceLock::new(),
        }
    }

    /// Sets what a worker runs when it has loaded the program.
    pub(crate) fn with_prewarm(mut self, prewarm: Option<Prewarm>) -> Self {
        self.prewarm = prewarm;
        self
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.get().and_then(Weak::upgrade) {
            engine.forget(self.key);
        }
    }
}
