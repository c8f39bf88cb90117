//! Errors of loading: an arena cannot become a pipeline.

use serde::{Deserialize, Serialize};

use super::arena::ArenaError;
use super::device::DeviceError;

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
