//! The layers of a loaded pipeline, and whether an adapter fits them.

use std::collections::HashSet;
use std::sync::Arc;

use burn::module::ParamId;
use burn::tensor::DType;

use super::adapter::{Adapter, AdapterLayer};
use crate::arena::arena::Arena;
use crate::arena::manifest::TensorEntry;
use crate::checkpoint::names;
use crate::error::lora::LoraError;
use crate::os::sync::Mutex;

/// The linear layers of a pipeline that was loaded from an arena.
#[derive(Clone)]
pub(super) struct Layers {
    arena: Arena,
    /// Parameters whose stored tensor is the transpose of the one that the module computes with.
    transposed: Arc<Mutex<HashSet<u64>>>,
}

impl Layers {
    pub(super) fn of(arena: Arena, transposed: Arc<Mutex<HashSet<u64>>>) -> Self {
        Self { arena, transposed }
    }

    /// Finds the parameter of each layer that an adapter changes.
    ///
    /// # Errors
    /// If the pipeline does not have a layer, or the adapter does not fit it.
    pub(super) fn parameters(&self, adapter: &Adapter) -> Result<Vec<(String, ParamId)>, LoraError> {
        let entries = &self.arena.manifest().tensors;
        adapter.layers().map(|layer| self.parameter(entries, adapter, &layer)).collect()
    }

    fn parameter(
        &self,
        entries: &[TensorEntry],
        adapter: &Adapter,
        layer: &AdapterLayer<'_>,
    ) -> Result<(String, ParamId), LoraError> {
        let named = format!("{}.weight", layer.path);
        let is_matrix = |entry: &&TensorEntry| entry.shape.len() == 2 && entry.param.is_some();
        let found = entries.iter().filter(is_matrix).find(|entry| entry.path == named);
        let missing = || {
            let layers = entries.iter().filter(is_matrix).filter_map(|entry| entry.path.strip_suffix(".weight"));
            let similar = names::similar(layer.path, layers).map(str::to_owned);
            LoraError::NoLayer { layer: layer.path.to_owned(), similar }
        };
        let (entry, id) = found.and_then(|entry| Some((entry, entry.param?))).ok_or_else(missing)?;
        if let Some(other) = entries.iter().find(|other| other.param == Some(id) && other.path != entry.path) {
            let (layer, other) = (layer.path.to_owned(), other.path.clone());
            return Err(LoraError::Tied { layer, other });
        }
        let unfit = |reason: String| Err(LoraError::Unfit { layer: layer.path.to_owned(), reason });
        let mut shape = entry.shape.clone();
        if self.transposed.lock().contains(&id) {
            shape.reverse();
        }
        if shape != [layer.inputs, layer.outputs] {
            return unfit(format!(
                "it has {} inputs and {} outputs, and the adapter is for {} inputs and {} outputs",
                shape[0], shape[1], layer.inputs, layer.outputs
            ));
        }
        let dtype = adapter.arena().manifest().tensors.first().map(|pair| pair.dtype);
        match (entry.dtype, dtype) {
            (DType::QFloat(_), _) | (_, None) => {}
            (expected, Some(found)) if expected == found => {}
            (expected, Some(found)) => {
                return unfit(format!(
                    "it is {expected:?}, and the adapter {found:?}; open the adapter with \
                     `Adapter::options().cast_floats(DType::{expected:?})`"
                ));
            }
        }
        Ok((layer.path.to_owned(), ParamId::from(id)))
    }
}
