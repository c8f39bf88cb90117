//! Comparison of a pipeline with its skeleton before it is shared: a worker would not have what the
//! config does not rebuild.

use std::collections::HashMap;

use super::collect::{Item, TensorItem, What};
use crate::error::share::ShareError;

/// Compares a pipeline with the skeleton that its config rebuilds. Returns the first difference as
/// an error.
pub(super) fn compare(pipeline: &[Item], skeleton: &[Item]) -> Result<(), ShareError> {
    let rebuilt: HashMap<_, _> = skeleton.iter().map(|item| (key(item), item)).collect();
    for item in pipeline {
        let Some(twin) = rebuilt.get(&key(item)) else {
            return Err(ShareError::NotRebuilt { path: item.path.clone(), what: describe(&item.what) });
        };
        same(item, twin)?;
    }
    let held: HashMap<_, _> = pipeline.iter().map(|item| (key(item), ())).collect();
    match skeleton.iter().find(|item| !held.contains_key(&key(item))) {
        Some(item) => Err(ShareError::NotShared { path: item.path.clone(), what: describe(&item.what) }),
        None if held.len() != pipeline.len() => {
            let mut seen = std::collections::HashSet::new();
            let twice = pipeline.iter().find(|item| !seen.insert(key(item))).map(|item| item.path.clone());
            Err(ShareError::Duplicate { path: twice.unwrap_or_default() })
        }
        None => Ok(()),
    }
}

/// The identity of an item. An enum and its unnamed content have the same path and differ in the
/// kind of item.
fn key(item: &Item) -> (&str, &'static str) {
    let kind = match &item.what {
        What::Tensor(_) => "tensor",
        What::Copy(_) => "copy",
        What::Flag(_) => "flag",
        What::Module => "module",
        What::Variant(_) => "variant",
    };
    (item.path.as_str(), kind)
}

fn describe(what: &What) -> String {
    match what {
        What::Tensor(tensor) => format!("a {} tensor of shape {:?}", tensor.kind, tensor.shape),
        What::Copy(_) => "a copied value".to_owned(),
        What::Flag(_) => "a flag of a module".to_owned(),
        What::Module => "a module without tensors".to_owned(),
        What::Variant(name) => format!("the variant `{name}`"),
    }
}

fn same(item: &Item, twin: &Item) -> Result<(), ShareError> {
    let equal = match (&item.what, &twin.what) {
        (What::Tensor(left), What::Tensor(right)) => left.kind == right.kind && fits(left, &right.shape),
        (What::Variant(left), What::Variant(right)) => left == right,
        _ => true,
    };
    if equal {
        Ok(())
    } else {
        Err(ShareError::Differs { path: item.path.clone(), found: describe(&item.what), rebuilt: describe(&twin.what) })
    }
}

/// Whether a tensor has the shape of the rebuilt one. An uninitialised parameter that burn stores
/// transposed reports its stored shape, an initialised one its own.
fn fits(tensor: &TensorItem, rebuilt: &[usize]) -> bool {
    tensor.shape == rebuilt
        || tensor.stored.as_ref().is_some_and(|stored| stored.shape == rebuilt)
        || tensor.outline.as_ref().is_some_and(|outline| outline.stored_shape(&tensor.shape) == rebuilt)
}

/// How a variant is written in an arena's manifest.
pub(super) fn variant(path: &str, name: &str) -> String {
    match path {
        "" => format!("variant {name}"),
        path => format!("{path}: variant {name}"),
    }
}
