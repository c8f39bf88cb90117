//! Why a checkpoint could not be opened.

use crate::arena::ArenaError;

/// Why a checkpoint could not be opened or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be opened or read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the operating system said.
        reason: String,
    },
    /// The file is of no format that is known.
    #[error(
        "{path} is neither a `.safetensors`, a `.bpk`, a `.safetensors.index.json`, nor a folder with one of them: {found}"
    )]
    Format {
        /// The file.
        path: String,
        /// What was found instead.
        found: String,
    },
    /// The file contradicts itself.
    #[error("{path} is corrupted: {reason}")]
    Corrupted {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The index of a sharded checkpoint names something that its files do not have.
    #[error("{index}: {reason}")]
    Index {
        /// The index.
        index: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor has elements of a type that burn does not have.
    #[error("tensor `{name}` of {path} cannot be packed: burn has no element type {dtype}")]
    Element {
        /// The file.
        path: String,
        /// The tensor, as the file names it.
        name: String,
        /// The type, as the file names it.
        dtype: String,
    },
    /// A pattern is not a regular expression.
    #[error("`{pattern}` is not a regular expression: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two tensors have the same name.
    #[error("`{first}` and `{second}` would both be named `{name}`")]
    Duplicate {
        /// The name.
        name: String,
        /// A tensor in a file.
        first: String,
        /// Another one.
        second: String,
    },
    /// A packed file could not be written.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

impl CheckpointError {
    pub(super) fn corrupted(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::Corrupted { path: path.display().to_string(), reason: reason.into() }
    }
}
