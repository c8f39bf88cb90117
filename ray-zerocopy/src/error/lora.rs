//! Why an adapter could not be read, added or found.

use super::arena::ArenaError;
use super::checkpoint::CheckpointError;
use super::holder::HolderError;
use super::load::LoadError;
use super::share::ShareError;

/// Why a LoRA adapter could not be read, added to a set, or chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// The config of the adapter cannot be read, or asks for something that is not supported.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: String,
        /// What is wrong, with the field.
        reason: String,
    },
    /// The adapter has a tensor that is not one of a LoRA pair.
    #[error(
        "{path}: the tensor `{tensor}` is not `<layer>.lora_A.weight` or `<layer>.lora_B.weight` of a pair: {reason}"
    )]
    Tensor {
        /// The file.
        path: String,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The module has no adapter.
    #[error("`{module}` has no LoRA adapter; attach one with burn's `Module::apply_lora`")]
    NoAdapter {
        /// The path of the module.
        module: String,
    },
    /// The pipeline does not have a layer that the adapter changes.
    #[error(
        "the adapter changes the layer `{layer}`, but the pipeline has no matrix `{layer}.weight`{}; rename the \
         adapter's layers with `Adapter::options().rename(..)`",
        looks_like(.similar)
    )]
    NoLayer {
        /// The layer's name in the adapter.
        layer: String,
        /// A layer of the pipeline with a similar name.
        similar: Option<String>,
    },
    /// The adapter does not fit a layer of the pipeline.
    #[error("the adapter does not fit the layer `{layer}`: {reason}")]
    Unfit {
        /// The layer.
        layer: String,
        /// What was expected, and what was found.
        reason: String,
    },
    /// Two layers of the pipeline are one parameter, so one of them cannot be changed alone.
    #[error("the layer `{layer}` has the same parameter as `{other}`, so an adapter would change both; untie them")]
    Tied {
        /// The layer that the adapter changes.
        layer: String,
        /// The other layer.
        other: String,
    },
    /// There is no adapter of this name.
    #[error("there is no adapter `{name}`{}{}", looks_like(.similar), listed(.known))]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// A similar name that exists.
        similar: Option<String>,
        /// The names of all adapters.
        known: Vec<String>,
    },
    /// There is an adapter of this name already.
    #[error("there is an adapter `{name}` already; remove it first, or choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// The set belongs to a pipeline that was not loaded from an arena.
    #[error(
        "adapters are added to a pipeline that was loaded from an arena, and this one was not; add them in the worker, or \
         after `load`"
    )]
    NotLoaded,
    /// The checkpoint could not be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The adapter could not be shared.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The adapter's arena could not be found or made.
    #[error(transparent)]
    Holder(#[from] HolderError),
    /// The adapter could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The adapter's arena could not be opened.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

fn looks_like(similar: &Option<String>) -> String {
    similar.as_ref().map_or_else(String::new, |name| format!(" (there is `{name}`)"))
}

fn listed(known: &[String]) -> String {
    const MOST: usize = 10;
    match known.len() {
        0 => "; none has been added to this worker".to_owned(),
        found @ ..=MOST => format!("; the {found} of this worker are {}", known.join(", ")),
        found => format!("; the first {MOST} of {found} are {}", known[..MOST].join(", ")),
    }
}
