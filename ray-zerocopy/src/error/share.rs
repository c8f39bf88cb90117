//! Errors of sharing a pipeline, or a checkpoint, as an arena.

use super::arena::ArenaError;
use super::load::LoadError;

/// Why a pipeline could not be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The pipeline holds a value that its config does not rebuild, so workers would not have it.
    #[error(
        "`{path}` ({what}) is in the pipeline, but the pipeline that the config rebuilds does not have it; \
         let the config describe it, or mark the field `#[pipeline(copy)]` or `#[pipeline(skip)]`"
    )]
    NotRebuilt {
        /// The path in the pipeline.
        path: String,
        /// What is there.
        what: String,
    },
    /// The config rebuilds a value that the pipeline does not hold, so workers would have it
    /// uninitialised.
    #[error(
        "`{path}` ({what}) is in the pipeline that the config rebuilds, but not in the one that is shared; \
         was it removed after `init`? let the config describe that"
    )]
    NotShared {
        /// The path in the rebuilt pipeline.
        path: String,
        /// What is there.
        what: String,
    },
    /// The config rebuilds another value at this path.
    #[error("`{path}` is {found} in the pipeline, and {rebuilt} in the one that the config rebuilds")]
    Differs {
        /// The path in both.
        path: String,
        /// What the pipeline has.
        found: String,
        /// What the config rebuilds.
        rebuilt: String,
    },
    /// The checkpoint lacks parameters of the pipeline.
    #[error(
        "{checkpoint} does not have `{}`{}{}; {}rename what it has with `.rename(..)`, or keep the pipeline's own values \
         with `.allow_partial()`",
        missing.first().map_or("", String::as_str), others(.missing), looks_like(.similar), may_be_tied(.missing, .tied)
    )]
    NotInCheckpoint {
        /// The files.
        checkpoint: String,
        /// The paths of the parameters that are missing.
        missing: Vec<String>,
        /// A tensor of the checkpoint whose name looks like the first of them.
        similar: Option<String>,
        /// An embedding of the checkpoint that the first of them may be tied to: it has its shape.
        tied: Option<String>,
    },
    /// A tensor of the checkpoint does not fit the parameter of its name.
    #[error("`{name}` in {file} does not fit `{path}`: {reason}")]
    ShapeMismatch {
        /// The path of the parameter.
        path: String,
        /// The tensor's name in the file.
        name: String,
        /// The file.
        file: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// Two values have the same path.
    #[error("two values of the pipeline have the path `{path}`; tell them apart with `#[pipeline(rename = \"..\")]`")]
    Duplicate {
        /// The path of both.
        path: String,
    },
    /// A copied field does not keep its value through serde.
    #[error("`{field}` cannot be copied: {reason}; mark it `#[pipeline(skip)]` if workers can do without it")]
    LossyCopy {
        /// The path of the field.
        field: String,
        /// What went wrong.
        reason: String,
    },
    /// A key of a map cannot be written as text, which would name its entry.
    #[error("a key of a map in the pipeline cannot be written as text: {reason}")]
    Key {
        /// What went wrong.
        reason: String,
    },
    /// The config does not rebuild the pipeline at all.
    #[error("a worker could not rebuild the pipeline: {0}")]
    Rebuild(#[source] LoadError),
    /// The arena could not be built.
    #[error(transparent)]
    Arena(#[from] ArenaError),
}

fn others(missing: &[String]) -> String {
    match missing.len() {
        0 | 1 => String::new(),
        2 => " and one more".to_owned(),
        count => format!(" and {} more", count - 1),
    }
}

fn looks_like(similar: &Option<String>) -> String {
    similar.as_ref().map_or_else(String::new, |name| format!(" (it has `{name}`)"))
}

fn may_be_tied(missing: &[String], tied: &Option<String>) -> String {
    missing.first().zip(tied.as_ref()).map_or_else(String::new, |(path, name)| {
        format!("if it is tied to `{name}`, which has its shape, say so with `.tie(\"{path}\", \"{name}\")`; ")
    })
}
