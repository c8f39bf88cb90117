//! Loading: arena → pipeline whose tensors read the arena, by every worker.

use crate::error::load::LoadError;
use crate::tensor::copied::CopiedTensor;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use burn::tensor::Device;

use super::attach::Attacher;
use super::rebuild::Root;
use super::rebuild::{Source, skeleton};
use crate::arena::arena::Arena;
use crate::arena::file::ArenaFile;

/// A loaded pipeline, and the account of what had to be copied for it. Use it as the pipeline itself.
pub struct Loaded<P> {
    pipeline: P,
    copied: Vec<CopiedTensor>,
    decoding: Duration,
}

impl<P> Loaded<P> {
    /// The tensors that are copies, because the device or the backend cannot borrow them. Empty is the rule on `cpu`. On a GPU
    /// it has every tensor, and the sum of their sizes is what the process took from the arena to the GPU.
    pub fn copied(&self) -> &[CopiedTensor] {
        &self.copied
    }

    /// How much of the load went into the copied fields, such as a tokenizer: these every process has for itself.
    pub fn decode_time(&self) -> Duration {
        self.decoding
    }

    /// The pipeline alone.
    pub fn into_inner(self) -> P {
        crate::os::fork::adopt();
        self.pipeline
    }

    /// Makes any copy an error.
    ///
    /// # Errors
    /// If something was copied; names the first.
    pub fn strict(self) -> Result<Self, LoadError> {
        match self.copied.first() {
            None => Ok(self),
            Some(first) => Err(LoadError::Copied {
                count: self.copied.len(),
                bytes: self.copied.iter().map(|copied| copied.bytes).sum(),
                path: first.path.clone(),
            }),
        }
    }
}

impl<P> fmt::Debug for Loaded<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Loaded");
        text.field("pipeline", &std::any::type_name::<P>()).field("copied", &self.copied).finish()
    }
}

impl<P> Deref for Loaded<P> {
    type Target = P;

    fn deref(&self) -> &P {
        // What is called next may compute, in a child of `fork` too.
        crate::os::fork::adopt();
        &self.pipeline
    }
}

impl<P> DerefMut for Loaded<P> {
    fn deref_mut(&mut self) -> &mut P {
        crate::os::fork::adopt();
        &mut self.pipeline
    }
}

/// Rebuilds a pipeline from its config and lets its tensors read the arena: no weight is copied on `cpu`.
///
/// A parameter that is changed afterwards (by training, `cast`, an in-place operation) becomes a private copy of this
/// process: the arena never changes.
///
/// # Errors
/// If the arena is another pipeline's, or does not fit the rebuilt one; the path is named.
///
/// There is an example at [`share`](crate::share()).
pub fn load<P: Root>(arena: &Arena, device: &Device) -> Result<Loaded<P>, LoadError> {
    crate::os::fork::adopt();
    let expected = crate::error::type_name::<P>();
    if arena.pipeline() == ArenaFile::NO_PIPELINE {
        return Err(LoadError::NoPipeline { expected });
    }
    if arena.pipeline() != expected {
        return Err(LoadError::WrongPipeline {
            expected,
            found: arena.pipeline().to_owned(),
            fingerprint: arena.fingerprint().chars().take(12).collect(),
        });
    }
    let mut pipeline: P = skeleton(&Source::arena(arena), device)?;
    let (copied, decoding) = Attacher::run(&mut pipeline, arena, device)?;
    Ok(Loaded { pipeline, copied, decoding })
}
