//! Bare tensors, and containers of them behind a type alias. burn's own walk does not see these.

use burn::tensor::{Bool, Float, Int, Tensor};

use super::attach::Attacher;
use super::collect::Collector;
use super::containers::{Boxed, Lists, Map, MapKey, Optional, with_lists, with_maps};
use super::walk::{Over, Walk};
use crate::error::load::LoadError;
use crate::error::share::ShareError;
use crate::tensor::kind::{Kind, TensorKind};

/// A tensor without a parameter around it, or a container of such tensors.
pub trait BareTensors {
    /// Records each tensor.
    ///
    /// # Errors
    /// If a map's key cannot be written as text.
    fn collect(&self, collector: &mut Collector) -> Result<(), ShareError>;

    /// Replaces each tensor by the arena's.
    ///
    /// # Errors
    /// If the arena does not hold it.
    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError>;
}

impl Kind for Float {
    const STORED: TensorKind = TensorKind::Float;
}
impl Kind for Int {
    const STORED: TensorKind = TensorKind::Int;
}
impl Kind for Bool {
    const STORED: TensorKind = TensorKind::Bool;
}

impl<const D: usize, K: Kind> BareTensors for Tensor<D, K> {
    fn collect(&self, collector: &mut Collector) -> Result<(), ShareError> {
        collector.bare(K::STORED, self);
        Ok(())
    }

    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
        attacher.bare(K::STORED, self)
    }
}

/// The walk over [`BareTensors`].
struct Bare;

impl<T: BareTensors> Walk<T> for Bare {
    fn collect(&self, value: &T, collector: &mut Collector) -> Result<(), ShareError> {
        value.collect(collector)
    }

    fn attach(&self, value: &mut T, attacher: &mut Attacher) -> Result<(), LoadError> {
        value.attach(attacher)
    }
}

macro_rules! containers {
    ($([$($generics:tt)*] $container:ty = $walk:expr;)*) => {$(
        impl<$($generics)*> BareTensors for $container {
            fn collect(&self, collector: &mut Collector) -> Result<(), ShareError> {
                $walk.collect(self, collector)
            }

            fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
                $walk.attach(self, attacher)
            }
        }
    )*};
}

containers! {
    [T: BareTensors] Option<T> = Optional(Bare);
    [T: BareTensors] Box<T> = Boxed(Bare);
    [T: BareTensors + 'static, const N: usize] [T; N] = Lists::over(Bare);
}

macro_rules! lists {
    ($($list:ty;)*) => {
        containers! { $([T: BareTensors + 'static] $list = Lists::over(Bare);)* }
    };
}

macro_rules! maps {
    ($([$K:ident, $V:ident $(, $S:ident)?] $map:ty;)*) => {
        containers! { $([$K: MapKey, $V: BareTensors $(, $S)?] $map = Map { value: Bare };)* }
    };
}

with_lists!(lists);
with_maps!(maps);
