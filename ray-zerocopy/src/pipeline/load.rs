//! Loading: arena → pipeline whose tensors read the arena. Every worker does it.

use crate::error::load::LoadError;
use crate::tensor::copied::{CopiedTensor, DeviceMemory};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use burn::tensor::Device;

use super::attach::{AttachReport, Attacher};
use super::device_weights;
use super::rebuild::Root;
use super::rebuild::{Source, skeleton};
use crate::arena::arena::Arena;
use crate::arena::file::ArenaFile;

/// A loaded pipeline, with the list of the tensors that had to be copied for it. Dereferences to
/// the pipeline.
pub struct Loaded<P> {
    pipeline: P,
    copied: Vec<CopiedTensor>,
    decoding: Duration,
    device: Option<DeviceMemory>,
}

impl<P> Loaded<P> {
    /// The tensors that are copies, because the device or the backend cannot borrow them. The list
    /// is usually empty on `cpu`, and on `cuda`, where processes share one copy. On other GPUs it has
    /// every tensor, and the sum of their sizes is what the process uploaded.
    pub fn copied(&self) -> &[CopiedTensor] {
        &self.copied
    }

    /// The part of the load time that went into decoding the copied fields, such as a tokenizer.
    /// Each process has its own copy of them.
    pub fn decode_time(&self) -> Duration {
        self.decoding
    }

    /// The weights in the memory of a GPU, or why they were copied there for this process alone.
    /// `None` on devices whose memory processes cannot share.
    pub fn device_memory(&self) -> Option<&DeviceMemory> {
        self.device.as_ref()
    }

    /// Returns the pipeline without the list.
    pub fn into_inner(self) -> P {
        crate::os::fork::adopt();
        self.pipeline
    }

    /// Returns an error if a tensor was copied.
    ///
    /// # Errors
    /// If a tensor was copied. The error names the first one.
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
        // The caller may compute next, also in a child of `fork`.
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

/// Rebuilds a pipeline from its config, with tensors that read the arena. On `cpu` no weight is
/// copied, except quantised values of less than 8 bits.
///
/// A parameter that is changed afterwards (by training, `cast` or an in-place operation) becomes a
/// private copy of this process. The arena never changes.
///
/// # Errors
/// If the arena was made from another pipeline type, or does not fit the rebuilt pipeline. The
/// error names the path of the difference.
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
    device_weights::prepare(device)?;
    let mut pipeline: P = skeleton(&Source::arena(arena), device)?;
    let AttachReport { copied, decoding, device } = Attacher::run(&mut pipeline, arena, device)?;
    Ok(Loaded { pipeline, copied, decoding, device })
}
