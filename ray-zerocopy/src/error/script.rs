//! Why a TorchScript module cannot be opened.

use serde::{Deserialize, Serialize};

use super::arena::ArenaError;

/// Why a TorchScript module cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ScriptError {
    /// The file is no TorchScript module.
    #[error(
        "`{file}` is no TorchScript module: {reason}; `torch.jit.trace` or `torch.jit.script` make one, and its `save` writes it"
    )]
    Open {
        /// The file.
        file: String,
        /// What LibTorch said.
        reason: String,
    },
    /// A method writes into a parameter, which is shared memory that nobody can write to.
    #[error(
        "`{parameter}` cannot be shared: {what}; a parameter that changes is state, which `register_buffer` is for: each worker has its own \
         buffers. If nothing writes there, trace the module instead of scripting it"
    )]
    Writes {
        /// The parameter.
        parameter: String,
        /// Which method does what.
        what: String,
    },
    /// It cannot be found out what a method writes.
    #[error("the module cannot be shared: {what}, and what is written there cannot be found out")]
    Unknown {
        /// Which method does what.
        what: String,
    },
    /// The module could not be split.
    #[error("the module cannot be taken apart: {reason}")]
    Split {
        /// What LibTorch said.
        reason: String,
    },
    /// The program was built without LibTorch.
    #[error(
        "TorchScript modules are run by LibTorch, which this program was built without; build it with \
         `ray-zerocopy = {{ features = [\"torchscript\"] }}`"
    )]
    NotCompiled,
    /// The file or the arena holds something else.
    #[error("it holds no TorchScript module, but {}", if .found.is_empty() { "a packed checkpoint" } else { .found })]
    NoScript {
        /// What it holds.
        found: String,
    },
    /// Its table of methods cannot be read.
    #[error("the module is corrupted: {reason}")]
    Corrupted {
        /// What is wrong.
        reason: String,
    },
    /// The arena cannot be trusted, or not be made.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}
