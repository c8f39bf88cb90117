//! Variants: a pipeline is shared, and what a base has too is borrowed from it.

use super::rebuild::Root;
use super::share::share_into;
use super::share_from::share_from_into;
use crate::arena::arena::Arena;
use crate::arena::builder::ArenaBuilder;
use crate::checkpoint::Checkpoint;
use crate::error::share::ShareError;

impl Arena {
    /// Shares a pipeline as a variant of this arena, its base: stores the tensors and copied fields that
    /// the base does not have, and borrows the others from the base's memory.
    ///
    /// The result is an arena like any other: it is loaded, served by wrappers, passed to other processes
    /// and verified in the same way, and its memory is that of the difference. It keeps the memory of the
    /// base, also if the base itself is dropped. The pipeline may have another type than that of the base:
    /// tensors are compared by their bytes. A variant can be the base of another one. On a Ray cluster the
    /// base is put into the object store once, for all its variants.
    ///
    /// [`save_variant`](Self::save_variant) writes a file with the difference alone, and
    /// [`save`](Self::save) a whole one.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
    /// use ray_zerocopy::{Arena, Pipeline, load, share};
    ///
    /// #[derive(Pipeline)]
    /// #[pipeline(init = Model::new)]
    /// struct Model { body: Linear, head: Linear }
    ///
    /// impl Model {
    ///     fn new(device: &Device) -> Self {
    ///         Self { body: LinearConfig::new(256, 256).init(device), head: LinearConfig::new(256, 2).init(device) }
    ///     }
    /// }
    ///
    /// let device = Device::flex();
    /// let mut model = Model::new(&device);
    /// let base = share(&model)?;
    /// model.head = LinearConfig::new(256, 2).init(&device); // fine-tuned
    /// let tuned = base.variant(&model)?;
    /// assert_eq!(tuned.bases().collect::<Vec<_>>(), [(base.id(), 4 * (256 * 256 + 256))]);
    /// assert!(tuned.own_bytes() < 16 << 10);
    ///
    /// // A file with the difference, which is opened with its base.
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("tuned.bpk");
    /// tuned.save_variant(&path)?;
    /// let opened = Arena::open_variant(&path, &base)?;
    /// assert_eq!(opened.id(), tuned.id());
    /// let model = load::<Model>(&opened, &device)?;
    /// # assert!(model.copied().is_empty());
    /// # Ok::<(), ray_zerocopy::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`share`](crate::share()).
    pub fn variant<P: Root>(&self, pipeline: &P) -> Result<Self, ShareError> {
        share_into(pipeline, self.variant_builder::<P>())
    }

    /// Does the same as [`variant`](Self::variant) with the weights of a checkpoint, as
    /// [`share_from`](crate::share_from()) does: without a model in this process's heap.
    ///
    /// Tensors of the checkpoint that the base has too are borrowed from the base, also if the
    /// checkpoint's [placement](Checkpoint::placement) is its file.
    ///
    /// # Errors
    /// As [`share_from`](crate::share_from()).
    pub fn variant_from<P: Root>(&self, pipeline: &P, checkpoint: &Checkpoint) -> Result<Self, ShareError> {
        share_from_into(pipeline, checkpoint, self.variant_builder::<P>())
    }

    fn variant_builder<P>(&self) -> ArenaBuilder {
        ArenaBuilder::new(&crate::error::type_name::<P>()).on(self)
    }
}
