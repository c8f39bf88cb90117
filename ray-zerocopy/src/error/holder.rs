//! Why an arena could not be found by content, or kept for other programs.

use super::arena::ArenaError;
use super::checkpoint::CheckpointError;
use super::share::ShareError;

/// Why an arena could not be found or made by [`Arena::shared`](crate::Arena::shared), or kept for
/// other programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HolderError {
    /// The private folder in which the user's processes find each other cannot be used.
    #[error(
        "{path}, in which the processes of this user find each other, cannot be used: {reason}; remove it, or set \
         XDG_RUNTIME_DIR to a folder of this user for all of them"
    )]
    Folder {
        /// The folder, or the file in it.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This process cannot hand out arenas.
    #[error("this process cannot hand arenas to others: {reason}")]
    Endpoint {
        /// The operating system's error.
        reason: String,
    },
    /// The arena that was found is not the one that was asked for.
    #[error(
        "a process of this user handed out arena {found} as that of {source_of}, which is {expected}; `rzc ps` lists \
         which processes hold it: end those that are not programs of yours"
    )]
    OtherArena {
        /// What the arena was to be made from.
        source_of: String,
        /// The id of the content that was asked for.
        expected: String,
        /// The id of the content that was found.
        found: String,
    },
    /// The arena that was found belongs to another pipeline.
    #[error(
        "the arena of {source_of} does not fit this pipeline: {difference}; it was shared by a program with a `{found}`, \
         and this one is a `{expected}`: choose another name, or run the same version of both programs"
    )]
    OtherPipeline {
        /// What the arena was made from.
        source_of: String,
        /// The first difference.
        difference: String,
        /// The Rust type of this program's pipeline.
        expected: String,
        /// The Rust type of the pipeline that was shared.
        found: String,
    },
    /// There is no memory to keep the arena.
    #[error(
        "{source_of} has {bytes} bytes, and {kept} of {limit} are kept already; raise the limit, drop another arena, or \
         let the least recently used one go"
    )]
    Limit {
        /// What the arena is made from.
        source_of: String,
        /// Its size.
        bytes: u64,
        /// The size of the arenas that are kept.
        kept: u64,
        /// The most that may be kept.
        limit: u64,
    },
    /// No program follows the name that new weights were sent to.
    #[error(
        "no program of this user follows `{name}`{}; a program does with `tasks.follow(\"{name}\")`, as long as it keeps \
         the returned value",
        similar(names)
    )]
    NoFollower {
        /// The name.
        name: String,
        /// The names that programs follow.
        names: Vec<String>,
    },
    /// A variant cannot be kept before its base.
    #[error("the variant {variant} is kept with its base, arena {base}: keep that first")]
    BaseNotKept {
        /// The file.
        variant: String,
        /// The id of the base.
        base: String,
    },
    /// A process does not stop keeping an arena.
    #[error("process {pid} does not let arena {id} go: {reason}")]
    Release {
        /// The process.
        pid: u32,
        /// The arena.
        id: String,
        /// The reason.
        reason: String,
    },
    /// The service manager passed something unexpected, or cannot be reached.
    #[error("the service manager {what}: {reason}; see the unit of the holder")]
    Service {
        /// What it did, or could not do.
        what: String,
        /// The reason.
        reason: String,
    },
    /// The checkpoint could not be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The pipeline could not be shared.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The arena could not be built or opened.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

impl HolderError {
    /// An error of the operating system at a path.
    pub(crate) fn folder(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Folder { path: path.display().to_string(), reason: error.to_string() }
    }
}

/// The names that programs follow, for an error.
fn similar(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(", but some follow `{}`", names.join("`, `")) }
}
