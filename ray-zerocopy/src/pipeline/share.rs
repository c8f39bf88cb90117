//! Sharing: pipeline → arena, once, by the owner.

use burn::tensor::Device;

use super::collect::{Collector, Depth, Item, What};
use super::rebuild::{Source, skeleton};
use super::{LoadError, Root, compare};
use crate::arena::{Arena, ArenaBuilder, ArenaError, TensorEntry};

/// Why a pipeline could not be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareError {
    /// The pipeline holds something that its config does not make: a worker would not have it.
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
    /// The config makes something that the pipeline does not hold: a worker would have it, uninitialised.
    #[error(
        "`{path}` ({what}) is in the pipeline that the config rebuilds, but not in the one that is shared; \
         was it taken out after `init`? let the config describe that"
    )]
    NotShared {
        /// The path in the rebuilt pipeline.
        path: String,
        /// What is there.
        what: String,
    },
    /// The config makes something else at this path.
    #[error("`{path}` is {found} in the pipeline, and {rebuilt} in the one that the config rebuilds")]
    Differs {
        /// The path in both.
        path: String,
        /// What the pipeline has.
        found: String,
        /// What the config makes.
        rebuilt: String,
    },
    /// The checkpoint lacks parameters of the pipeline.
    #[error(
        "{checkpoint} does not have `{}`{}{}; {}rename what it has with `.rename(..)`, or keep the pipeline's own values \
         with `.partial()`",
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
    Unfit {
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
    /// A copied field does not survive its own serialisation.
    #[error("`{field}` cannot be copied: {reason}; mark it `#[pipeline(skip)]` if workers can do without it")]
    NotFaithful {
        /// The path of the field.
        field: String,
        /// What went wrong.
        reason: String,
    },
    /// A key of a map cannot name its entry.
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

/// Writes a pipeline's weights into a sealed arena, each one once, with its config and copied fields.
///
/// The pipeline is not changed and may be dropped: [`load`](super::load()) makes another of it.
/// The model is never held a second time in the heap: each tensor goes straight into the arena.
///
/// # Errors
/// If a field cannot travel, if the config does not rebuild the pipeline as it is (the first difference is named), or
/// if there is no memory for the arena.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
/// use ray_zerocopy::{Pipeline, load, share};
///
/// #[derive(Pipeline)]
/// #[pipeline(init = Model::new)]
/// struct Model { head: Linear }
///
/// impl Model {
///     fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
/// }
///
/// let device = Device::flex();
/// let model = Model::new(&device);
/// let arena = share(&model)?;
/// let twin = load::<Model>(&arena, &device)?;
/// assert!(twin.copied().is_empty());
///
/// let x = Tensor::<2>::ones([1, 4], &device);
/// assert_eq!(model.head.forward(x.clone()).into_data(), twin.head.forward(x).into_data());
/// # Ok::<(), ray_zerocopy::Error>(())
/// ```
pub fn share<P: Root>(pipeline: &P) -> Result<Arena, ShareError> {
    let items = Collector::run(pipeline, Depth::Values)?;
    rebuilt::<P>(&items)?;

    let mut builder = ArenaBuilder::new(&crate::type_name::<P>());
    for item in items {
        match item.what {
            What::Tensor(tensor) => {
                let Some(stored) = tensor.stored else { continue };
                let entry = TensorEntry {
                    path: item.path,
                    blob: 0,
                    kind: tensor.kind,
                    dtype: stored.dtype,
                    shape: stored.shape,
                    param: tensor.param,
                    why: None,
                };
                builder.tensor(entry, stored.source)?;
            }
            other => structure(&mut builder, item.path, other),
        }
    }
    Ok(builder.seal(&mut |_| ())?)
}

/// Makes sure that the config rebuilds what the pipeline holds.
pub(super) fn rebuilt<P: Root>(items: &[Item]) -> Result<(), ShareError> {
    let rebuilt: P = skeleton(&Source::items(items), &Device::flex()).map_err(ShareError::Rebuild)?;
    compare::compare(items, &Collector::run(&rebuilt, Depth::Skeleton)?)
}

/// Adds what is not a tensor.
pub(super) fn structure(builder: &mut ArenaBuilder, path: String, what: What) {
    match what {
        What::Tensor(_) => {}
        What::Copy(value) => builder.copy(&path, value.unwrap_or_default()),
        What::Flag(enabled) => builder.flag(path, enabled),
        What::Module => builder.structure(format!("{path}: module")),
        What::Variant(name) => builder.structure(compare::variant(&path, name)),
    }
}
