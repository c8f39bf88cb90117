//! What a pipeline is, and how its fields travel: collect (pipeline → entries) and attach (entries → pipeline).
//!
//! Knows arenas; knows nothing of engines, workers or wrappers. `#[derive(Pipeline)]` writes the walk over the fields,
//! and everything that the walk calls is here.

mod attach;
mod collect;
mod compare;
mod containers;
mod fit;
mod host;
pub mod leaf;
mod load;
mod path;
mod rebuild;
mod share;
mod share_from;
mod tensors;
pub mod whole;

pub use attach::Attacher;
pub use collect::Collector;
pub use containers::{MapKey, entries, entries_mut, unshare};
pub(crate) use host::{bytes as bytes_of, dtype as dtype_of, tensor as tensor_of};
pub use load::{Copied, LoadError, Loaded, load};
pub use rebuild::{Root, Source, rebuilt};
pub use share::{ShareError, share};
pub use share_from::share_from;
pub use tensors::BareTensors;
pub(crate) use tensors::Kind;

/// A struct or enum whose fields can travel: Modules and tensors are shared, the rest is copied.
///
/// Implemented by `#[derive(Pipeline)]`; there is no reason to write it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Pipeline",
    label = "no `#[derive(Pipeline)]` on this type",
    note = "write `#[derive(ray_zerocopy::Pipeline)]` on the struct that holds the burn modules"
)]
pub trait Pipeline: Sized + 'static {
    /// Hands every field to the collector, in order of declaration.
    ///
    /// # Errors
    /// If a field cannot travel.
    fn collect(&self, collector: &mut Collector) -> Result<(), ShareError>;

    /// Replaces every field by what the arena holds for it.
    ///
    /// # Errors
    /// If the arena does not hold what the field needs.
    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError>;
}
