//! Errors of arenas: system calls, seals, files, and invalid or corrupted contents.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::os::limits;

/// Why an arena could not be built or opened, or is not valid.
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
        /// The kernel's error, and its likely cause.
        reason: String,
    },
    /// A seal is missing, so the memory could still be changed.
    #[error("the memfd is not sealed: {missing} missing; only memory that cannot change can be opened as an arena")]
    NotSealed {
        /// The seals that are missing.
        missing: String,
    },
    /// A file cannot be opened, read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// The operating system's error, or what is wrong with the file.
        reason: String,
    },
    /// A file has changed since it was opened.
    #[error(
        "{path} was changed or replaced since it was opened; open it again, and do not change it while it is in use"
    )]
    FileChanged {
        /// The file.
        path: String,
    },
    /// The arena is in Ray's object store, but local workers need a file descriptor.
    #[error(
        "the arena is in Ray's object store, and only Ray can pass it to workers; share the pipeline or open the file again for workers without Ray"
    )]
    InStore,
    /// The bytes are not a burnpack container, or not one with the manifest of an arena.
    #[error("not an arena: {0}")]
    NotAnArena(String),
    /// The arena is a variant, and was opened without the arena that it borrows from.
    #[error(
        "{variant} is a variant: it stores what differs from its base, arena {base}; open the base, and then the \
         variant with `Arena::open_variant`, or `--base FILE` of `rzc`; `Arena::save` of the opened variant writes a \
         file that needs no base"
    )]
    NeedsBase {
        /// The file of the variant, or its id.
        variant: String,
        /// The id of the base, or the ids of several.
        base: String,
    },
    /// The arena is a variant of another base than the given one.
    #[error(
        "{variant} is a variant of arena {expected}, and the given base is arena {found}; open the file of arena \
         {expected}, or make the variant again from arena {found} with `Arena::variant` or `rzc variant`"
    )]
    OtherBase {
        /// The file of the variant, or its id.
        variant: String,
        /// The id of the base that it names.
        expected: String,
        /// The id of the arena that was given.
        found: String,
    },
    /// The arena cannot be saved as a variant, since it borrows weights from a file that is not an arena.
    #[error(
        "the arena cannot be saved as a variant: it borrows weights from {file}, which has no checksums; write a whole \
         file with `Arena::save`, or make the base from a packed checkpoint (`rzc pack`) in sealed memory"
    )]
    BorrowsFile {
        /// The file.
        file: String,
    },
    /// The manifest has another format version.
    #[error("the arena's format is {found}, and this build reads {expected}; share the pipeline again with this build")]
    Format {
        /// The version found.
        found: String,
        /// The version this build reads.
        expected: String,
    },
    /// The checksum of the manifest differs from the one that was stored with it.
    #[error("the arena's manifest is corrupted: BLAKE3 is {found}, expected {expected}")]
    ManifestChecksum {
        /// The checksum that was stored.
        expected: String,
        /// The checksum of the bytes.
        found: String,
    },
    /// The checksum of a blob differs from the one that was stored with it.
    #[error("entry `{entry}` of the arena is corrupted: BLAKE3 is {found}, expected {expected}")]
    BlobChecksum {
        /// The path of the entry.
        entry: String,
        /// The checksum that was stored.
        expected: String,
        /// The checksum of the bytes.
        found: String,
    },
    /// An entry of the manifest is invalid, or contradicts the container.
    #[error("entry `{entry}` of the arena is corrupted: {reason}")]
    BadEntry {
        /// The path of the entry.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The pipeline is larger than a burnpack container may be.
    #[error("{what}: {found}, but a burnpack container allows at most {limit}; share the pipeline in parts")]
    TooLarge {
        /// What exceeds the limit.
        what: String,
        /// The number that was found.
        found: u64,
        /// The highest allowed number.
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
