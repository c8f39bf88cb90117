//! Walks over containers: from a list, a map or a pointer to its content.
//!
//! Each container has a trait, by which the compiler finds the walk, and names the container in an
//! error if it is not what the macro took it for.

use std::sync::Arc;

use serde::Serialize;

use super::attach::Attacher;
use super::collect::Collector;
use super::walk::{Over, Walk};
use crate::error::load::LoadError;
use crate::error::share::ShareError;

/// A list whose items can be walked.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list that a pipeline can walk",
    label = "neither a reference to it nor an exclusive one is an iterator over `{T}`",
    note = "derive `Pipeline` on it, make it `Serialize + DeserializeOwned` behind another name, or mark the field `#[pipeline(skip)]`"
)]
pub trait PipelineList<T> {
    /// All items, in order.
    fn items<'a>(&'a self) -> impl Iterator<Item = &'a T>
    where
        T: 'a;
    /// All items, in order.
    fn items_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut T>
    where
        T: 'a;
    /// Makes the walk over the list.
    type Walk;
}

#[diagnostic::do_not_recommend]
impl<L: ?Sized, T: 'static> PipelineList<T> for L
where
    for<'a> &'a L: IntoIterator<Item = &'a T>,
    for<'a> &'a mut L: IntoIterator<Item = &'a mut T>,
{
    fn items<'a>(&'a self) -> impl Iterator<Item = &'a T>
    where
        T: 'a,
    {
        self.into_iter()
    }

    fn items_mut<'a>(&'a mut self) -> impl Iterator<Item = &'a mut T>
    where
        T: 'a,
    {
        self.into_iter()
    }

    type Walk = Lists<T>;
}

/// Makes walks over lists of `T`.
pub struct Lists<T>(std::marker::PhantomData<fn(T)>);

impl<T> Over for Lists<T> {
    type Walk<W> = List<T, W>;
    fn over<W>(item: W) -> List<T, W> {
        List { item, of: std::marker::PhantomData }
    }
}

/// The walk over a list of `T`.
pub struct List<T, W> {
    item: W,
    of: std::marker::PhantomData<fn(T)>,
}

impl<L: PipelineList<T> + ?Sized, T: 'static, W: Walk<T>> Walk<L> for List<T, W> {
    fn collect(&self, value: &L, collector: &mut Collector) -> Result<(), ShareError> {
        let mut items = value.items().enumerate();
        items.try_for_each(|(index, item)| self.item.collect_field(&index.to_string(), item, collector))
    }

    fn attach(&self, value: &mut L, attacher: &mut Attacher) -> Result<(), LoadError> {
        let mut items = value.items_mut().enumerate();
        items.try_for_each(|(index, item)| self.item.attach_field(&index.to_string(), item, attacher))
    }
}

/// A key of a map of models: anything that serde writes as text, a number or a unit variant.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a map in a pipeline",
    label = "not `Serialize`",
    note = "keys name the entries in every process: derive `serde::Serialize` on `{Self}`"
)]
pub trait MapKey {
    /// The key as JSON, which stands between the brackets of a path.
    ///
    /// # Errors
    /// If it cannot be written as text.
    fn text(&self) -> Result<String, KeyError>;
    /// The walk over a map with such keys, with the walk over a value.
    type Walk<W>;
    /// See [`Self::Walk`].
    fn over<W>(value: W) -> Self::Walk<W>;
}

#[diagnostic::do_not_recommend]
impl<K: Serialize> MapKey for K {
    fn text(&self) -> Result<String, KeyError> {
        serde_json::to_string(self).map_err(|error| KeyError(error.to_string()))
    }

    type Walk<W> = Map<W>;
    fn over<W>(value: W) -> Map<W> {
        Map { value }
    }
}

/// A map whose entries can be walked.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a map that a pipeline can walk",
    label = "not std's `HashMap` or `BTreeMap`, nor `indexmap::IndexMap`",
    note = "derive `Pipeline` on it, make it `Serialize + DeserializeOwned` behind another name, or mark the field `#[pipeline(skip)]`"
)]
pub trait PipelineMap {
    /// The keys. Whether they are [`MapKey`]s is checked apart, for an error of its own.
    type Key;
    /// The values.
    type Value;
    /// All entries, in the map's own order.
    fn entries(&self) -> impl Iterator<Item = (&Self::Key, &Self::Value)>;
    /// All entries, in the map's own order.
    fn entries_mut(&mut self) -> impl Iterator<Item = (&Self::Key, &mut Self::Value)>;
}

/// Calls a macro with every list type of which a container of tensors can be made.
macro_rules! with_lists {
    ($callback:ident) => {
        $callback! {
            ::std::vec::Vec<T>;
            ::std::collections::VecDeque<T>;
        }
    };
}

/// Calls a macro with every map type, each behind its type parameters.
macro_rules! with_maps {
    ($callback:ident) => {
        $callback! {
            [K, V, S] ::std::collections::HashMap<K, V, S>;
            [K, V] ::std::collections::BTreeMap<K, V>;
            [K, V, S] ::indexmap::IndexMap<K, V, S>;
        }
    };
}

pub(crate) use {with_lists, with_maps};

macro_rules! pipeline_map {
    ($([$($generics:tt)*] $map:ty;)*) => {$(
        #[diagnostic::do_not_recommend]
        impl<$($generics)*> PipelineMap for $map {
            type Key = K;
            type Value = V;
            fn entries(&self) -> impl Iterator<Item = (&K, &V)> {
                self.iter()
            }
            fn entries_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
                self.iter_mut()
            }
        }
    )*};
}

with_maps!(pipeline_map);

/// The walk over a map. Entries are visited in the order of their keys' text, so that every process
/// has the same order.
pub struct Map<W> {
    pub(super) value: W,
}

impl<M: PipelineMap<Key: MapKey>, W: Walk<M::Value>> Walk<M> for Map<W> {
    fn collect(&self, value: &M, collector: &mut Collector) -> Result<(), ShareError> {
        for (key, item) in sorted(value.entries())? {
            collector.enter_key(&key);
            self.value.collect(item, collector)?;
            collector.exit();
        }
        Ok(())
    }

    fn attach(&self, value: &mut M, attacher: &mut Attacher) -> Result<(), LoadError> {
        for (key, item) in sorted(value.entries_mut())? {
            attacher.enter_key(&key);
            self.value.attach(item, attacher)?;
            attacher.exit();
        }
        Ok(())
    }
}

fn sorted<'a, K: MapKey + 'a, V>(entries: impl Iterator<Item = (&'a K, V)>) -> Result<Vec<(String, V)>, KeyError> {
    let mut entries = entries.map(|(key, value)| Ok((key.text()?, value))).collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|(left, _), (right, _)| left.cmp(right));
    match entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(KeyError(format!("two keys are written as {}", pair[0].0))),
        None => Ok(entries),
    }
}

/// A key of a map that cannot name its entry.
#[derive(Debug)]
pub struct KeyError(String);

impl From<KeyError> for ShareError {
    fn from(KeyError(reason): KeyError) -> Self {
        Self::Key { reason }
    }
}

impl From<KeyError> for LoadError {
    fn from(KeyError(reason): KeyError) -> Self {
        Self::Key { reason }
    }
}

/// An `Option`, a `Box` or an `Arc`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the container that its name says",
    label = "not the standard library's type of this name",
    note = "containers are told apart by their names: rename `{Self}`, or mark the field `#[pipeline(copy)]` or `#[pipeline(skip)]`"
)]
pub trait PipelineContainer {
    /// Makes the walk into the container.
    type Walk;
}

#[diagnostic::do_not_recommend]
impl<T> PipelineContainer for Option<T> {
    type Walk = Options;
}

#[diagnostic::do_not_recommend]
impl<T: ?Sized> PipelineContainer for Box<T> {
    type Walk = Boxes;
}

#[diagnostic::do_not_recommend]
impl<T: ?Sized> PipelineContainer for Arc<T> {
    type Walk = Arcs;
}

/// Makes walks into `Option`s.
pub struct Options;

impl Over for Options {
    type Walk<W> = Optional<W>;
    fn over<W>(value: W) -> Optional<W> {
        Optional(value)
    }
}

/// Makes walks into `Box`es.
pub struct Boxes;

impl Over for Boxes {
    type Walk<W> = Boxed<W>;
    fn over<W>(value: W) -> Boxed<W> {
        Boxed(value)
    }
}

/// Makes walks into `Arc`s.
pub struct Arcs;

impl Over for Arcs {
    type Walk<W> = Counted<W>;
    fn over<W>(value: W) -> Counted<W> {
        Counted(value)
    }
}

/// The walk over an `Option`.
pub struct Optional<W>(pub(super) W);

impl<T, W: Walk<T>> Walk<Option<T>> for Optional<W> {
    fn collect(&self, value: &Option<T>, collector: &mut Collector) -> Result<(), ShareError> {
        value.iter().try_for_each(|item| self.0.collect(item, collector))
    }

    fn attach(&self, value: &mut Option<T>, attacher: &mut Attacher) -> Result<(), LoadError> {
        value.iter_mut().try_for_each(|item| self.0.attach(item, attacher))
    }
}

/// The walk into a `Box`.
pub struct Boxed<W>(pub(super) W);

impl<T: ?Sized, W: Walk<T>> Walk<Box<T>> for Boxed<W> {
    fn collect(&self, value: &Box<T>, collector: &mut Collector) -> Result<(), ShareError> {
        self.0.collect(value, collector)
    }

    fn attach(&self, value: &mut Box<T>, attacher: &mut Attacher) -> Result<(), LoadError> {
        self.0.attach(value, attacher)
    }
}

/// The walk into an `Arc`. `init` has to give each field an `Arc` of its own, since a value that
/// two fields share cannot be replaced for one of them.
pub struct Counted<W>(W);

impl<T: ?Sized, W: Walk<T>> Walk<Arc<T>> for Counted<W> {
    fn collect(&self, value: &Arc<T>, collector: &mut Collector) -> Result<(), ShareError> {
        self.0.collect(value, collector)
    }

    fn attach(&self, value: &mut Arc<T>, attacher: &mut Attacher) -> Result<(), LoadError> {
        match Arc::get_mut(value) {
            Some(value) => self.0.attach(value, attacher),
            None => Err(LoadError::SharedArc { path: attacher.path() }),
        }
    }
}
