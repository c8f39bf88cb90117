//! Which way a field travels, told apart by the compiler.
//!
//! `(&&&&&Leaf::<T>::NEW).ops()` picks the first trait below that `T` satisfies: method lookup tries the type with the
//! most references first, and skips an impl whose bounds do not hold. In generic code the bounds that are in scope
//! decide. burn implements `Module` for constants such as `f32` and `String` too, which are also serde: what is both
//! is shared if it holds tensors, and copied if it does not.

use std::marker::PhantomData;

use burn::module::Module;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Pipeline;
use super::attach::Attacher;
use super::bare_tensors::BareTensors;
use super::collect::Collector;
use super::copy_field::CopyOps;
use crate::error::load::LoadError;
use crate::error::share::ShareError;

/// Stands for a field of type `T`.
pub struct Leaf<T: ?Sized>(PhantomData<fn() -> Box<T>>);

impl<T: ?Sized> Clone for Leaf<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Leaf<T> {}

impl<T: ?Sized> Leaf<T> {
    /// The only value.
    pub const NEW: Self = Self(PhantomData);
}

/// How a field of type `T` is collected and attached.
pub struct Ops<T> {
    /// Notes what the value holds.
    pub collect: fn(&T, &mut Collector) -> Result<(), ShareError>,
    /// Replaces the value by what the arena holds.
    pub attach: fn(&mut T, &mut Attacher) -> Result<(), LoadError>,
}

/// A bare tensor, or a container of bare tensors: shared.
pub trait ViaTensor<T> {
    /// See [`Ops`].
    fn ops(&self) -> Ops<T>;
}

impl<T: BareTensors> ViaTensor<T> for &&&&Leaf<T> {
    fn ops(&self) -> Ops<T> {
        Ops { collect: |value, collector| value.collect(collector), attach: |value, attacher| value.attach(attacher) }
    }
}

/// A nested pipeline: walked.
pub trait ViaPipeline<T> {
    /// See [`Ops`].
    fn ops(&self) -> Ops<T>;
}

impl<T: Pipeline> ViaPipeline<T> for &&&Leaf<T> {
    fn ops(&self) -> Ops<T> {
        Ops { collect: T::collect, attach: T::attach }
    }
}

/// Both a Module and serde: shared if it holds tensors, else copied.
pub trait ViaModuleAndSerde<T> {
    /// See [`Ops`].
    fn ops(&self) -> Ops<T>;
}

impl<T: Module + Serialize + DeserializeOwned> ViaModuleAndSerde<T> for &&Leaf<T> {
    fn ops(&self) -> Ops<T> {
        Ops {
            collect: |value, collector| match collector.module(value) {
                true => Ok(()),
                false => {
                    collector.forget_module();
                    collector.copy(value, CopyOps::of())
                }
            },
            attach: |value, attacher| match attacher.is_copied() {
                true => attacher.copy(value, CopyOps::of()),
                false => attacher.module(value),
            },
        }
    }
}

/// A Module: its tensors are shared.
pub trait ViaModule<T> {
    /// See [`Ops`].
    fn ops(&self) -> Ops<T>;
}

impl<T: Module> ViaModule<T> for &Leaf<T> {
    fn ops(&self) -> Ops<T> {
        module()
    }
}

/// serde: copied.
pub trait ViaSerde<T> {
    /// See [`Ops`].
    fn ops(&self) -> Ops<T>;
}

impl<T: Serialize + DeserializeOwned> ViaSerde<T> for Leaf<T> {
    fn ops(&self) -> Ops<T> {
        copy()
    }
}

/// Nothing that travels: always a compile error, which says what the ways out are.
pub trait ViaNothing<T> {
    /// Never compiles: nothing that gets here is a [`PipelineField`].
    fn ops(self) -> Ops<T>
    where
        T: PipelineField;
}

impl<T> ViaNothing<T> for Leaf<T> {
    fn ops(self) -> Ops<T>
    where
        T: PipelineField,
    {
        T::never()
    }
}

/// What a field of a pipeline has to be. Nobody implements it: it carries the message.
#[diagnostic::on_unimplemented(
    message = "a pipeline cannot carry a field of type `{Self}` into another process",
    label = "neither a Module, a Pipeline, a Tensor nor serde",
    note = "a field travels if its type is a burn Module, derives `Pipeline`, is a Tensor, or is `Serialize + DeserializeOwned`",
    note = "ways out: derive one of these on `{Self}`, or write `#[pipeline(skip)]` on the field to leave it as the worker's `init` makes it",
    note = "containers behind a type alias are not seen: write `HashMap<..>`, `Vec<..>` .. in the field itself"
)]
pub trait PipelineField: Sized {
    /// Never called.
    fn never() -> Ops<Self>;
}

/// For `#[pipeline(module)]`: shared, whatever else the type is.
pub fn module<T: Module>() -> Ops<T> {
    Ops {
        collect: |value, collector| {
            collector.module(value);
            Ok(())
        },
        attach: |value, attacher| attacher.module(value),
    }
}

/// For `#[pipeline(copy)]` and `#[pipeline(config)]`: copied, whatever else the type is.
pub fn copy<T: Serialize + DeserializeOwned>() -> Ops<T> {
    Ops {
        collect: |value, collector| collector.copy(value, CopyOps::of()),
        attach: |value, attacher| attacher.copy(value, CopyOps::of()),
    }
}
