//! Maps in a fixed order, and shared pointers that are to be written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::attach::Attacher;
use crate::error::load::LoadError;
use crate::error::share::ShareError;

/// A key of a map of models: anything that serde writes as text, a number or a unit variant.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of a map in a pipeline",
    label = "not `Serialize`",
    note = "keys name the entries in every process: derive `serde::Serialize` on `{Self}`"
)]
pub trait MapKey: Serialize {}
impl<K: Serialize> MapKey for K {}

/// A map whose entries can be walked.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a map that a pipeline can walk",
    label = "not std's `HashMap` or `BTreeMap`, nor `indexmap::IndexMap`",
    note = "derive `Pipeline` on it, make it `Serialize + DeserializeOwned` behind another name, or mark the field `#[pipeline(skip)]`"
)]
pub trait MapLike {
    /// The keys.
    type Key: MapKey;
    /// The values.
    type Value;
    /// All entries, in the map's own order.
    fn iter(&self) -> impl Iterator<Item = (&Self::Key, &Self::Value)>;
    /// All entries, in the map's own order.
    fn iter_mut(&mut self) -> impl Iterator<Item = (&Self::Key, &mut Self::Value)>;
}

macro_rules! map_like {
    ($([$($generics:tt)*] $map:ty;)*) => {$(
        impl<$($generics)*> MapLike for $map {
            type Key = K;
            type Value = V;
            fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
                <$map>::iter(self)
            }
            fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
                <$map>::iter_mut(self)
            }
        }
    )*};
}

map_like! {
    [K: MapKey, V, S] HashMap<K, V, S>;
    [K: MapKey, V] BTreeMap<K, V>;
    [K: MapKey, V, S] indexmap::IndexMap<K, V, S>;
}

/// The entries of a map, sorted by their keys' text, so that every process has the same order.
///
/// # Errors
/// If a key cannot be written as text.
pub fn entries<M: MapLike>(map: &M) -> Result<Vec<(String, &M::Value)>, KeyError> {
    sorted(map.iter().map(|(key, value)| Ok((text(key)?, value))))
}

/// [`entries`], to be written.
///
/// # Errors
/// If a key cannot be written as text.
pub fn entries_mut<M: MapLike>(map: &mut M) -> Result<Vec<(String, &mut M::Value)>, KeyError> {
    sorted(map.iter_mut().map(|(key, value)| Ok((text(key)?, value))))
}

fn text<K: Serialize>(key: &K) -> Result<String, KeyError> {
    serde_json::to_string(key).map_err(|error| KeyError(error.to_string()))
}

fn sorted<V>(entries: impl Iterator<Item = Result<(String, V), KeyError>>) -> Result<Vec<(String, V)>, KeyError> {
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
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

/// The value behind an `Arc`, to be written. `init` has to give each field an `Arc` of its own.
///
/// # Errors
/// If somebody else holds the `Arc`.
pub fn unshare<'a, T: ?Sized>(arc: &'a mut Arc<T>, attacher: &Attacher) -> Result<&'a mut T, LoadError> {
    Arc::get_mut(arc).ok_or_else(|| LoadError::SharedArc { path: attacher.path() })
}
