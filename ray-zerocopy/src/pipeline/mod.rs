//! The trait [`Pipeline`], and the two walks over its fields: collect (pipeline → entries) and
//! attach (entries → pipeline).
//!
//! Depends on arenas, and not on engines, workers or wrappers. `#[derive(Pipeline)]` writes the
//! walk over the fields. Everything that the walk calls is here.

pub(crate) mod attach;
pub(crate) mod autoref;
pub(crate) mod bare_tensors;
pub(crate) mod collect;
pub(crate) mod compare;
pub(crate) mod containers;
pub(crate) mod copy_field;
pub(crate) mod device_weights;
pub(crate) mod field_kind;
#[cfg(feature = "ray")]
pub(crate) mod gpu_parts;
pub(crate) mod load;
pub(crate) mod path;
pub(crate) mod rebuild;
pub(crate) mod share;
pub(crate) mod share_from;
pub(crate) mod summary;
mod variant;
pub(crate) mod walk;

use self::attach::Attacher;
use self::collect::Collector;
use crate::error::load::LoadError;
use crate::error::share::ShareError;

/// A struct or enum whose fields can be sent to another process: Modules and tensors are shared,
/// the other fields are copied.
///
/// Implemented by `#[derive(Pipeline)]`; do not write it by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a Pipeline",
    label = "no `#[derive(Pipeline)]` on this type",
    note = "write `#[derive(ray_zerocopy::Pipeline)]` on the struct that holds the burn modules"
)]
pub trait Pipeline: Sized + 'static {
    /// Passes every field to the collector, in order of declaration.
    ///
    /// # Errors
    /// If a field cannot be shared or copied.
    fn collect(&self, collector: &mut Collector) -> Result<(), ShareError>;

    /// Replaces every field by the value that the arena holds for it.
    ///
    /// # Errors
    /// If the arena does not hold a value that a field needs.
    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError>;
}
