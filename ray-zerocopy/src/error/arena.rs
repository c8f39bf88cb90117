//! Errors of arenas: system calls, seals, files and contents that contradict themselves.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::os::limits;

/// Why an arena could not be built, opened or trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ArenaError {
    /// The kernel refused a system call.
    #[error("{call} failed for an arena of {bytes} bytes: {reason}")]
    System {
        /// The system call.
        call: String,
        /// The size of the arena, in bytes.
        bytes: u64,
        /// What the kernel said, and what may be behind it.
        reason: String,
    },
    /// The memory could still be changed by somebody.
    #[error("the memfd is not sealed: {missing} missing; only an arena that nobody can change may be shared")]
    NotSealed {
        /// The seals that are missing.
        missing: String,
    },
    /// A file cannot be opened, read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the operating system said.
        reason: String,
    },
    /// A file is not as it was when it was opened.
    #[error("{path} has been changed or replaced since it was opened; open it again, and leave it alone then")]
    FileChanged {
        /// The file.
        path: String,
    },
    /// The arena lies in Ray's object store, and workers of this machine get theirs from a file descriptor.
    #[error(
        "the arena lies in Ray's object store, from where only Ray hands it out; share the pipeline, or open the file, again for workers without Ray"
    )]
    InStore,
    /// The bytes are not a burnpack container.
    #[error("not an arena: {0}")]
    NotAnArena(String),
    /// The container is a plain burnpack file, or one of another version.
    #[error("the arena's format is {found}, and this build reads {expected}; share the pipeline again with this build")]
    Format {
        /// The version found.
        found: String,
        /// The version this build reads.
        expected: String,
    },
    /// The manifest does not have the checksum that was stored with it.
    #[error("the arena's manifest is corrupted: BLAKE3 is {found}, and {expected} was stored")]
    ManifestChecksum {
        /// The checksum that was stored.
        expected: String,
        /// The checksum of the bytes.
        found: String,
    },
    /// The bytes of a blob do not have the checksum that was stored with them.
    #[error("entry `{entry}` of the arena is corrupted: BLAKE3 is {found}, and {expected} was stored")]
    BlobChecksum {
        /// The path of the entry.
        entry: String,
        /// The checksum that was stored.
        expected: String,
        /// The checksum of the bytes.
        found: String,
    },
    /// The manifest contradicts the container.
    #[error("entry `{entry}` of the arena is corrupted: {reason}")]
    BadEntry {
        /// The path of the entry.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pipeline is larger than a burnpack container may be.
    #[error("{what}: {found}, and a burnpack container takes {limit} at most; share the pipeline in parts")]
    TooLarge {
        /// What there is too much of.
        what: String,
        /// How much there is.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
    /// A tensor could not be read while the arena was built.
    #[error("tensor `{entry}` could not be written into the arena: {reason}")]
    Write {
        /// The path of the entry.
        entry: String,
        /// What went wrong.
        reason: String,
    },
}

impl ArenaError {
    pub(crate) fn system(call: &str, bytes: u64, error: std::io::Error) -> Self {
        Self::System { call: call.to_owned(), bytes, reason: limits::explained(call, bytes, &error) }
    }

    pub(crate) fn file(path: &Path, error: std::io::Error) -> Self {
        Self::File { path: path.display().to_string(), reason: error.to_string() }
    }
}
