//! The kind of a field, found by the compiler: how the field is shared or copied.
//!
//! burn implements `Module` for constants such as `f32` and `String` too, which are also serde:
//! what is both is shared if it holds tensors, and copied if it does not.

use burn::module::Module;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Pipeline;
use super::attach::Attacher;
use super::autoref::autoref_ladder;
use super::bare_tensors::BareTensors;
use super::collect::Collector;
use super::copy_field::CopyOps;
use super::walk::Walk;
use crate::error::load::LoadError;
use crate::error::share::ShareError;

/// How a value of type `T` that is not taken apart is collected and attached.
pub struct FieldOps<T> {
    collect: fn(&T, &mut Collector) -> Result<(), ShareError>,
    attach: fn(&mut T, &mut Attacher) -> Result<(), LoadError>,
}

impl<T> Walk<T> for FieldOps<T> {
    fn collect(&self, value: &T, collector: &mut Collector) -> Result<(), ShareError> {
        (self.collect)(value, collector)
    }

    fn attach(&self, value: &mut T, attacher: &mut Attacher) -> Result<(), LoadError> {
        (self.attach)(value, attacher)
    }
}

impl<T: Module> FieldOps<T> {
    /// Shares the tensors of a module.
    fn module() -> Self {
        Self {
            collect: |value, collector| {
                collector.module(value);
                Ok(())
            },
            attach: |value, attacher| attacher.module(value),
        }
    }
}

impl<T: Serialize + DeserializeOwned> FieldOps<T> {
    /// Copies the value by serde.
    pub(super) fn copy() -> Self {
        Self {
            collect: |value, collector| collector.copy(value, CopyOps::of()),
            attach: |value, attacher| attacher.copy(value, CopyOps::of()),
        }
    }
}

impl<T: Module + Serialize + DeserializeOwned> FieldOps<T> {
    /// Shares a module that has tensors, and copies one that has none.
    fn module_or_copy() -> Self {
        Self {
            collect: |value, collector| {
                if collector.module(value) {
                    return Ok(());
                }
                collector.forget_module();
                collector.copy(value, CopyOps::of())
            },
            attach: |value, attacher| {
                if attacher.is_copied() { attacher.copy(value, CopyOps::of()) } else { attacher.module(value) }
            },
        }
    }
}

autoref_ladder! {
    /// A field's type `T`, on which the compiler looks up the field's kind.
    pub struct FieldKind;

    /// A bare tensor, or a container of bare tensors: shared.
    AsTensor: [T: BareTensors] T => FieldOps<T> = FieldOps { collect: T::collect, attach: T::attach };

    /// A nested pipeline: walked.
    AsPipeline: [T: Pipeline] T => FieldOps<T> = FieldOps { collect: T::collect, attach: T::attach };

    /// Both a Module and serde: shared if it holds tensors, else copied.
    AsModuleAndSerde: [T: Module + Serialize + DeserializeOwned] T => FieldOps<T> = FieldOps::module_or_copy();

    /// A Module: its tensors are shared.
    AsModule: [T: Module] T => FieldOps<T> = FieldOps::module();

    /// serde: copied.
    AsSerde: [T: Serialize + DeserializeOwned] T => FieldOps<T> = FieldOps::copy();

    /// None of these. The output is not a [`PipelineField`], so the code does not compile.
    AsUnsupported: [T] T => T = unreachable!("the type is not a `PipelineField`");
}

/// What [`FieldKind`] finds for a field that can be part of a pipeline.
///
/// It is looked up on the field's own type if nothing is found, so that the error names that type.
#[diagnostic::on_unimplemented(
    message = "field of type `{Self}` cannot be sent to another process",
    label = "neither a Module, a Pipeline, a Tensor nor serde",
    note = "a field's type is a burn Module, derives `Pipeline`, is a Tensor, or is `Serialize + DeserializeOwned`",
    note = "either derive one of these on `{Self}`, or write `#[pipeline(skip)]` on the field to leave it as the worker's `init` makes it",
    note = "containers behind a type alias are not seen: write `HashMap<..>`, `Vec<..>` .. in the field itself"
)]
pub trait PipelineField {
    /// How the field is collected and attached.
    type Walk;
    /// See [`Self::Walk`].
    fn walk(self) -> Self::Walk;
}

#[diagnostic::do_not_recommend]
impl<T> PipelineField for FieldOps<T> {
    type Walk = Self;
    fn walk(self) -> Self {
        self
    }
}

/// A field with `#[pipeline(module)]`: shared, whatever else the type is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a burn Module",
    label = "not a `Module`, as `#[pipeline(module)]` says",
    note = "remove `#[pipeline(module)]` to let the compiler find the kind of the field, or derive `Module` on `{Self}`"
)]
pub trait ModuleField: Sized {
    /// How the field is collected and attached.
    fn walk() -> FieldOps<Self>;
}

#[diagnostic::do_not_recommend]
impl<T: Module> ModuleField for T {
    fn walk() -> FieldOps<Self> {
        FieldOps::module()
    }
}
