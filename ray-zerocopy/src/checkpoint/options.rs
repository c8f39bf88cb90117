//! What has to be known before a checkpoint is opened.

use std::path::Path;

use super::Checkpoint;
use crate::error::checkpoint::CheckpointError;

/// How to open a checkpoint that has more than one answer: see [`Checkpoint::options`].
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
    /// The key under which a PyTorch file has its state dict, `state_dict` or `model.generator`. All tensors below it
    /// are taken, those of nested dictionaries under names with dots. The empty key is the top.
    ///
    /// It is needed if there are tensors under several keys. Without it, the dictionary with tensors that is nearest to
    /// the top is taken. Other formats have no keys, and ignore it.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The variant of the weights in a folder: `fp16` for `model.fp16.safetensors` or
    /// `model.safetensors.index.fp16.json`.
    ///
    /// It is needed if a folder has several and none without a variant. A path to a file does without.
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
