//! Loading: arena → pipeline whose tensors read the arena, by every worker.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::rebuild::{Source, skeleton};
use super::{Attacher, Root};
use crate::arena::{Arena, ArenaError, ArenaFile};
use crate::device::DeviceError;

/// Why an arena could not be loaded as a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LoadError {
    /// The arena is another pipeline's.
    #[error("the arena holds the pipeline `{found}` ({fingerprint}), and `{expected}` is to be loaded from it")]
    WrongPipeline {
        /// The type that is loaded.
        expected: String,
        /// The type that was shared.
        found: String,
        /// The start of the arena's schema fingerprint.
        fingerprint: String,
    },
    /// The arena is a packed checkpoint: weights of no pipeline yet.
    #[error(
        "the arena holds a packed checkpoint, and no pipeline; open its file with `Checkpoint::open` and put it into a `{expected}` with `share_from`"
    )]
    NoPipeline {
        /// The type that is loaded.
        expected: String,
    },
    /// The rebuilt pipeline needs something that the arena does not hold.
    #[error("`{path}` is not in the arena of `{pipeline}`; was it shared by another version of this program?")]
    Missing {
        /// The path in the rebuilt pipeline.
        path: String,
        /// The pipeline that was shared.
        pipeline: String,
    },
    /// The arena holds something that the rebuilt pipeline has no place for.
    #[error("`{path}` is in the arena, but the rebuilt `{pipeline}` has no place for it; is its `init` deterministic?")]
    Unexpected {
        /// The path in the arena.
        path: String,
        /// The pipeline that is loaded.
        pipeline: String,
    },
    /// A tensor does not fit.
    #[error("tensor `{path}`: {reason}")]
    Tensor {
        /// The path of the tensor.
        path: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A copied field cannot be decoded.
    #[error("the copied field `{path}` cannot be decoded: {reason}")]
    Decode {
        /// The path of the field.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// A key of a map cannot name its entry.
    #[error("a key of a map in the pipeline cannot be written as text: {reason}")]
    Key {
        /// What went wrong.
        reason: String,
    },
    /// An `Arc` of the skeleton is held twice, so that it cannot be written.
    #[error("the `Arc` at `{path}` is shared right after `init`; give each field an `Arc` of its own, ties are kept")]
    SharedArc {
        /// The path of the field.
        path: String,
    },
    /// The constructor failed or panicked.
    #[error("`{pipeline}` cannot be rebuilt: {reason}")]
    Rebuild {
        /// The pipeline that is loaded.
        pipeline: String,
        /// What the constructor said.
        reason: String,
    },
    /// The device did not take the weights.
    #[error("the weights could not be uploaded to the device: {reason}")]
    Upload {
        /// What the device said.
        reason: String,
    },
    /// Something had to be copied, and that was not allowed.
    #[error("strict: {count} tensors ({bytes} bytes) cannot be borrowed on this device, the first is `{path}`")]
    Copied {
        /// How many tensors.
        count: usize,
        /// Their size.
        bytes: u64,
        /// The path of the first.
        path: String,
    },
    /// The arena cannot be trusted.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl LoadError {
    /// Whether it is the process that lacks something, memory say, so that another process may succeed.
    pub(crate) fn is_for_want_of_something(&self) -> bool {
        matches!(self, Self::Arena(ArenaError::System { .. }))
    }
}

/// A tensor that could not be borrowed, because of its device or dtype.
///
/// On a device with memory of its own, such as a GPU, that is every tensor: its bytes went from the arena's pages to the
/// device, and what the device's driver needed on the way is given back. Tied tensors are there once, and are listed once,
/// under the first of their paths. In host memory it is a private copy of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The path of the tensor.
    pub path: String,
    /// Its size in the arena, in bytes.
    pub bytes: u64,
}

/// A loaded pipeline, and the account of what had to be copied for it. Use it as the pipeline itself.
pub struct Loaded<P> {
    pipeline: P,
    copied: Vec<Copied>,
    decoding: Duration,
}

impl<P> Loaded<P> {
    /// The tensors that are copies, because the device or the backend cannot borrow them. Empty is the rule on `cpu`. On a GPU
    /// it has every tensor, and the sum of their sizes is what the process took from the arena to the GPU.
    pub fn copied(&self) -> &[Copied] {
        &self.copied
    }

    /// How much of the load went into the copied fields, such as a tokenizer: these every process has for itself.
    pub fn decoding(&self) -> Duration {
        self.decoding
    }

    /// The pipeline alone.
    pub fn into_inner(self) -> P {
        crate::fork::adopt();
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
        crate::fork::adopt();
        &self.pipeline
    }
}

impl<P> DerefMut for Loaded<P> {
    fn deref_mut(&mut self) -> &mut P {
        crate::fork::adopt();
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
/// There is an example at [`share`](super::share()).
pub fn load<P: Root>(arena: &Arena, device: &Device) -> Result<Loaded<P>, LoadError> {
    crate::fork::adopt();
    let expected = crate::type_name::<P>();
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
