//! Errors of opening, changing and packing checkpoints.

use super::arena::ArenaError;

/// Why a checkpoint could not be opened or used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file cannot be opened or read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// The operating system's error.
        reason: String,
    },
    /// The file is not in a supported format.
    #[error(
        "{path} is neither a `.safetensors`, a `.bpk`, a file of `torch.save`, an index of such, nor a folder with one of them: {found}"
    )]
    Format {
        /// The file.
        path: String,
        /// What was found instead.
        found: String,
    },
    /// The file is in another known format, which is not a checkpoint.
    #[error("{path} is not a checkpoint, but {found}")]
    Foreign {
        /// The file.
        path: String,
        /// What it is, and what to do.
        found: String,
    },
    /// The file ends too early.
    #[error("{path} is incomplete, as a download that was cut: {reason}; fetch it again")]
    Cut {
        /// The file.
        path: String,
        /// What is missing.
        reason: String,
    },
    /// The pickle in the file imports a function that could run code.
    #[error(
        "{path} imports `{what}`, which does not belong in a state dict: it could run code if Python's `torch.load` opened the file. It was not run here"
    )]
    Unsafe {
        /// The file.
        path: String,
        /// The function.
        what: String,
    },
    /// A file of `torch.save` does not hold a state dict.
    #[error("{path} has no state dict: {found}")]
    NoStateDict {
        /// The file.
        path: String,
        /// What it holds.
        found: String,
    },
    /// The file or folder has several candidates, and none or a missing one was selected.
    #[error("{path} has {what}: {choices}; {how}")]
    Choose {
        /// The file or folder.
        path: String,
        /// What the file or folder has.
        what: String,
        /// The candidates.
        choices: String,
        /// How to select one.
        how: String,
    },
    /// The file has a feature that is not supported, such as sparse tensors.
    #[error("{path} cannot be read: {reason}")]
    Unsupported {
        /// The file.
        path: String,
        /// What it is, and what to do.
        reason: String,
    },
    /// The contents of the file are invalid.
    #[error("{path} is corrupted: {reason}")]
    Corrupted {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The index of a sharded checkpoint is invalid, or names a tensor or file that does not exist.
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
    /// A replacement names a group that its pattern does not have.
    #[error("in `{to}`: there is no group `{group}` in `{pattern}`; {hint}")]
    Group {
        /// The pattern.
        pattern: String,
        /// The replacement.
        to: String,
        /// The group.
        group: String,
        /// What was probably meant, or which groups exist.
        hint: String,
    },
    /// A tensor cannot be tied, split, fused or transposed as requested.
    #[error("`{name}` cannot be {what}: {reason}")]
    Edit {
        /// The tensor, or the pattern.
        name: String,
        /// The requested change.
        what: String,
        /// Why it is not possible.
        reason: String,
    },
    /// Two tensors have the same name.
    #[error("`{first}` and `{second}` would both be named `{name}`")]
    Duplicate {
        /// The name.
        name: String,
        /// The first tensor, with its file.
        first: String,
        /// The second tensor, with its file.
        second: String,
    },
    /// A packed file could not be read or written.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

impl CheckpointError {
    pub(crate) fn corrupted(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::Corrupted { path: path.display().to_string(), reason: reason.into() }
    }
}
