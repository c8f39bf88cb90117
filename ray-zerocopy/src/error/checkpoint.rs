//! Why a checkpoint could not be opened.

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
        /// What the operating system said.
        reason: String,
    },
    /// The file is of no format that is known.
    #[error(
        "{path} is neither a `.safetensors`, a `.bpk`, a file of `torch.save`, an index of such, nor a folder with one of them: {found}"
    )]
    Format {
        /// The file.
        path: String,
        /// What was found instead.
        found: String,
    },
    /// The file is something else, which others read.
    #[error("{path} is not a checkpoint, but {found}")]
    Foreign {
        /// The file.
        path: String,
        /// What it is, and what to do about it.
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
    /// The pickle in the file imports what runs code.
    #[error(
        "{path} imports `{what}`, which no state dict does: it is made to run code where Python's `torch.load` opens it. Nothing of it was run"
    )]
    Unsafe {
        /// The file.
        path: String,
        /// The function.
        what: String,
    },
    /// A file of `torch.save` holds something else than a state dict.
    #[error("{path} has no state dict: {found}")]
    NoStateDict {
        /// The file.
        path: String,
        /// What it has.
        found: String,
    },
    /// There are several of what is wanted, or none of what was chosen.
    #[error("{path} has {what}: {choices}; {how}")]
    Choose {
        /// The file or folder.
        path: String,
        /// What there are several of.
        what: String,
        /// What there is.
        choices: String,
        /// How to choose.
        how: String,
    },
    /// The file has something that is not read, as tensors that are sparse.
    #[error("{path} cannot be read: {reason}")]
    Unsupported {
        /// The file.
        path: String,
        /// What it is, and what to do about it.
        reason: String,
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
    /// A replacement names a group that its pattern does not have.
    #[error("in `{to}`: there is no group `{group}` in `{pattern}`; {hint}")]
    Group {
        /// The pattern.
        pattern: String,
        /// The replacement.
        to: String,
        /// The group.
        group: String,
        /// What was meant, or what there is.
        hint: String,
    },
    /// A tensor cannot be tied, split, fused or transposed as was said.
    #[error("`{name}` cannot be {what}: {reason}")]
    Edit {
        /// The tensor, or the pattern.
        name: String,
        /// What should be done.
        what: String,
        /// Why it cannot be.
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
    pub(crate) fn corrupted(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::Corrupted { path: path.display().to_string(), reason: reason.into() }
    }
}
