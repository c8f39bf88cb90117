//! Sharing: pipeline → arena, once, by the owner.

use crate::error::share::ShareError;
use burn::tensor::Device;

use super::collect::{Collector, Depth, Item, What};
use super::compare;
use super::rebuild::Root;
use super::rebuild::{Source, skeleton};
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::arena::manifest::TensorEntry;

/// Writes a pipeline's weights into a sealed arena, each one once, with its config and copied
/// fields.
///
/// The pipeline is not changed and may be dropped: [`load`](crate::load()) makes another one from
/// the arena. Each tensor is written straight into the arena, so the heap never holds the model a
/// second time.
///
/// # Errors
/// If a field cannot be shared or copied, if the config does not rebuild the pipeline as it is (the
/// error names the first difference), or if there is no memory for the arena.
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
    share_into(pipeline, ArenaBuilder::new(&crate::error::type_name::<P>()))
}

/// Shares a pipeline with a builder.
pub(super) fn share_into<P: Root>(pipeline: &P, mut builder: ArenaBuilder) -> Result<Arena, ShareError> {
    let items = Collector::run(pipeline, Depth::Values)?;
    rebuilt::<P>(&items)?;
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

/// Checks that the config rebuilds everything that the pipeline holds.
pub(super) fn rebuilt<P: Root>(items: &[Item]) -> Result<(), ShareError> {
    let rebuilt: P = skeleton(&Source::items(items), &Device::flex()).map_err(ShareError::Rebuild)?;
    compare::compare(items, &Collector::run(&rebuilt, Depth::Skeleton)?)
}

/// Adds an item that is not a tensor to the arena.
pub(super) fn structure(builder: &mut ArenaBuilder, path: String, what: What) {
    match what {
        What::Tensor(_) => {}
        What::Copy(value) => builder.copy(&path, value.unwrap_or_default()),
        What::Flag(enabled) => builder.flag(path, enabled),
        What::Module => builder.structure(format!("{path}: module")),
        What::Variant(name) => builder.structure(compare::variant(&path, name)),
    }
}
