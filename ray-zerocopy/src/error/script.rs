//! Errors of opening TorchScript modules.

use serde::{Deserialize, Serialize};

use super::arena::ArenaError;

/// Error of opening a TorchScript module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ScriptError {
    /// The file is not a TorchScript module.
    #[error(
        "`{file}` is not a TorchScript module: {reason}; create one with `torch.jit.trace` or `torch.jit.script`, \
         and write it with its `save`"
    )]
    Open {
        /// The file.
        file: String,
        /// LibTorch's error, or what the file contains.
        reason: String,
    },
    /// A method writes to a parameter, which is in read-only shared memory.
    #[error(
        "`{parameter}` cannot be shared: {what}; register a parameter that changes with `register_buffer`, because \
         each worker has its own copy of such a buffer. If nothing writes to it, trace the module instead of \
         scripting it"
    )]
    Writes {
        /// Path of the parameter.
        parameter: String,
        /// The method, and how it writes.
        what: String,
    },
    /// The analysis cannot determine what a method writes to.
    #[error("the module cannot be shared: {what}, and the analysis cannot determine what is written there")]
    Unknown {
        /// The method, and what it does.
        what: String,
    },
    /// The module could not be split.
    #[error("the module cannot be split into weights and code: {reason}")]
    Split {
        /// LibTorch's error.
        reason: String,
    },
    /// The program was built without LibTorch.
    #[error(
        "TorchScript modules need LibTorch, and this program was built without it; build it with \
         `ray-zerocopy = {{ features = [\"torchscript\"] }}`"
    )]
    NotCompiled,
    /// The file or the arena does not contain a TorchScript module.
    #[error("expected a TorchScript module, found {}", if .found.is_empty() { "a packed checkpoint" } else { .found })]
    NoScript {
        /// What the file or the arena contains.
        found: String,
    },
    /// The module's signature cannot be decoded, or its skeleton cannot be loaded.
    #[error("the module is corrupted: {reason}")]
    Corrupted {
        /// Why it is invalid.
        reason: String,
    },
    /// The arena cannot be read or created, or fails validation.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}
