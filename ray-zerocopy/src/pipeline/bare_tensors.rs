//! Bare tensors, and containers of them. burn's own walk does not see these.

use crate::tensor::kind::Kind;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;

use burn::tensor::{Bool, Float, Int, Tensor};

use super::attach::Attacher;
use super::collect::Collector;
use super::containers::{MapKey, entries, entries_mut};
use crate::error::load::LoadError;
use crate::error::share::ShareError;
use crate::tensor::kind::TensorKind;

/// A tensor without a parameter around it, or a container of such tensors.
pub trait BareTensors {
    /// Notes each tensor.
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

impl<T: BareTensors> BareTensors for Option<T> {
    fn collect(&self, collector: &mut Collector) -> Result<(), ShareError> {
        self.iter().try_for_each(|item| item.collect(collector))
    }

    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
        self.iter_mut().try_for_each(|item| item.attach(attacher))
    }
}

impl<T: BareTensors> BareTensors for Box<T> {
    fn collect(&self, collector: &mut Collector) -> Result<(), ShareError> {
        (**self).collect(collector)
    }

    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
        (**self).attach(attacher)
    }
}

macro_rules! lists {
    ($([$($generics:tt)*] $list:ty;)*) => {$(
        impl<$($generics)*> BareTensors for $list {
            fn collect(&self, collector: &mut Collector) -> Result<(), ShareError> {
                self.iter().enumerate().try_for_each(|(index, item)| {
                    collector.enter_index(index);
                    item.collect(collector)?;
                    collector.exit();
                    Ok(())
                })
            }

            fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
                self.iter_mut().enumerate().try_for_each(|(index, item)| {
                    attacher.enter_index(index);
                    item.attach(attacher)?;
                    attacher.exit();
                    Ok(())
                })
            }
        }
    )*};
}

lists! {
    [T: BareTensors] Vec<T>;
    [T: BareTensors] VecDeque<T>;
    [T: BareTensors, const N: usize] [T; N];
}

macro_rules! maps {
    ($([$($generics:tt)*] $map:ty;)*) => {$(
        impl<$($generics)*> BareTensors for $map {
            fn collect(&self, collector: &mut Collector) -> Result<(), ShareError> {
                entries(self)?.into_iter().try_for_each(|(key, item)| {
                    collector.enter_key(&key);
                    item.collect(collector)?;
                    collector.exit();
                    Ok(())
                })
            }

            fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
                entries_mut(self)?.into_iter().try_for_each(|(key, item)| {
                    attacher.enter_key(&key);
                    item.attach(attacher)?;
                    attacher.exit();
                    Ok(())
                })
            }
        }
    )*};
}

maps! {
    [K: MapKey, V: BareTensors, S: BuildHasher] HashMap<K, V, S>;
    [K: MapKey, V: BareTensors] BTreeMap<K, V>;
    [K: MapKey, V: BareTensors, S: BuildHasher] indexmap::IndexMap<K, V, S>;
}
