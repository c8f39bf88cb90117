//! Options for opening a checkpoint.

use std::path::Path;

use super::Checkpoint;
use crate::error::checkpoint::CheckpointError;

/// Options for a checkpoint with several candidates: see [`Checkpoint::options`].
///
/// ```no_run
/// # use ray_zerocopy::Checkpoint;
/// // A training checkpoint with `model` and `ema`, each with its own weights.
/// let averaged = Checkpoint::options().key("ema").open("last.ckpt")?;
/// // A folder with `model.fp16.safetensors` and `model.fp32.safetensors`.
/// let half = Checkpoint::options().variant("fp16").open("unet")?;
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "it opens nothing before `open`"]
pub struct CheckpointOptions {
    pub(super) key: Option<String>,
    pub(super) variant: Option<String>,
}

impl CheckpointOptions {
    /// Sets the key of the state dict in a PyTorch file, such as `state_dict` or `model.generator`.
    /// All tensors below the key are read; names of nested dictionaries are joined with dots. The
    /// empty key is the top level.
    ///
    /// The key is required if there are tensors under several keys. By default the dictionary with
    /// tensors that is nearest to the top level is used. Other formats have no keys and ignore it.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the variant of the weights in a folder, such as `fp16` for `model.fp16.safetensors` or
    /// `model.safetensors.index.fp16.json`.
    ///
    /// The variant is required if a folder has several and none without a variant. It is ignored
    /// for a path to a file.
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// Opens the checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::with(path.as_ref(), self)
    }
}
