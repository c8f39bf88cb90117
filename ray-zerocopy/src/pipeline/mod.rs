//! What a pipeline is, and how its fields travel: collect (pipeline → entries) and attach (entries → pipeline).
//!
//! Knows arenas; knows nothing of engines, workers or wrappers. `#[derive(Pipeline)]` writes the walk over the fields,
//! and everything that the walk calls is here.

pub(crate) mod attach;
pub(crate) mod autoref;
pub(crate) mod bare_tensors;
pub(crate) mod collect;
pub(crate) mod compare;
pub(crate) mod containers;
pub(crate) mod copy_field;
pub(crate) mod field_kind;
pub(crate) mod load;
pub(crate) mod path;
pub(crate) mod rebuild;
pub(crate) mod share;
pub(crate) mod share_from;
pub(crate) mod walk;

use self::attach::Attacher;
use self::collect::Collector;
use crate::error::load::LoadError;
use crate::error::share::ShareError;

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
