//! Errors of loading an arena as a pipeline.

use serde::{Deserialize, Serialize};

use super::arena::ArenaError;
use super::device::DeviceError;

/// Why an arena could not be loaded as a pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LoadError {
    /// The function given to `prewarm` panicked after the pipeline was loaded.
    #[error("the prewarm function of `{pipeline}`, given at {place}, failed: {reason}")]
    Prewarm {
        /// The pipeline that is loaded.
        pipeline: String,
        /// Where the function was given to the wrapper.
        place: String,
        /// The panic message and its location.
        reason: String,
    },
    /// The arena was made from another pipeline type.
    #[error(
        "the arena holds the pipeline `{found}` ({fingerprint}), not `{expected}`; share a `{expected}`, or load the other type"
    )]
    WrongPipeline {
        /// The type that is loaded.
        expected: String,
        /// The type that was shared.
        found: String,
        /// The start of the arena's schema fingerprint.
        fingerprint: String,
    },
    /// The arena is a packed checkpoint: its weights do not belong to a pipeline yet.
    #[error(
        "the arena holds a packed checkpoint, not a pipeline; open its file with `Checkpoint::open` and pass it to `share_from` with a `{expected}`"
    )]
    NoPipeline {
        /// The type that is loaded.
        expected: String,
    },
    /// The rebuilt pipeline has a value that the arena does not hold.
    #[error("`{path}` is not in the arena of `{pipeline}`; was it shared by another version of this program?")]
    Missing {
        /// The path in the rebuilt pipeline.
        path: String,
        /// The pipeline that was shared.
        pipeline: String,
    },
    /// The arena holds a value that the rebuilt pipeline does not have.
    #[error("`{path}` is in the arena, but the rebuilt `{pipeline}` does not have it; is its `init` deterministic?")]
    Unexpected {
        /// The path in the arena.
        path: String,
        /// The pipeline that is loaded.
        pipeline: String,
    },
    /// A tensor has another kind, shape or type than the rebuilt pipeline needs.
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
    /// A key of a map cannot be written as text, which would name its entry.
    #[error("a key of a map in the pipeline cannot be written as text: {reason}")]
    Key {
        /// What went wrong.
        reason: String,
    },
    /// An `Arc` of the skeleton has a second owner, so its content cannot be replaced.
    #[error(
        "the `Arc` at `{path}` has a second owner after `init`; give each field its own `Arc`, tied weights stay tied"
    )]
    SharedArc {
        /// The path of the field.
        path: String,
    },
    /// The constructor failed or panicked.
    #[error("`{pipeline}` cannot be rebuilt: {reason}")]
    Rebuild {
        /// The pipeline that is loaded.
        pipeline: String,
        /// The constructor's error, or its panic message.
        reason: String,
    },
    /// The weights could not be uploaded to the device.
    #[error("the weights could not be uploaded to the device: {reason}")]
    Upload {
        /// The device's error.
        reason: String,
    },
    /// Tensors had to be copied, which `strict` does not allow.
    #[error(
        "strict: {count} tensors ({bytes} bytes) cannot be borrowed on this device, the first is `{path}`; without `strict` they are copied"
    )]
    Copied {
        /// How many tensors.
        count: usize,
        /// Their size.
        bytes: u64,
        /// The path of the first.
        path: String,
    },
    /// The arena cannot be opened, or is not valid.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The device is not available.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl LoadError {
    /// Whether this process lacks a resource, such as memory, so that another process may succeed.
    pub(crate) fn is_for_want_of_something(&self) -> bool {
        matches!(self, Self::Arena(ArenaError::System { .. }))
    }
}
