//! A pipeline without its weights: what has to be equal for two programs to use one arena.

use std::collections::HashMap;

use super::collect::{Collector, Depth, Item, What};
use super::rebuild::Root;
use super::share::rebuilt;
use crate::arena::arena::Arena;
use crate::error::arena::ArenaError;
use crate::error::share::ShareError;

/// The content of a pipeline, whose parameters are not initialised.
pub(crate) struct Summary {
    pipeline: String,
    items: Vec<Item>,
}

impl Summary {
    /// # Errors
    /// If a field cannot be shared or copied, or the config does not rebuild the pipeline.
    pub(crate) fn of<P: Root>(pipeline: &P) -> Result<Self, ShareError> {
        let items = Collector::run(pipeline, Depth::Outline)?;
        rebuilt::<P>(&items)?;
        Ok(Self { pipeline: crate::error::type_name::<P>(), items })
    }

    /// BLAKE3 over everything that an arena takes from the pipeline itself when the weights come from a
    /// file: its type, structure, copied fields and constants.
    ///
    /// # Errors
    /// If a constant cannot be read.
    pub(crate) fn digest(&self) -> Result<blake3::Hash, ShareError> {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        add(self.pipeline.as_bytes());
        for item in &self.items {
            add(item.path.as_bytes());
            match &item.what {
                What::Tensor(tensor) => {
                    add(format!("tensor {} {:?}", tensor.kind, tensor.shape).as_bytes());
                    if let Some(outline) = &tensor.outline {
                        add(format!("{} {}", outline.module, outline.transposed).as_bytes());
                    }
                    if let Some(stored) = &tensor.stored {
                        add(format!("{:?} {:?}", stored.dtype, stored.shape).as_bytes());
                        let streamed = stored.source.stream(&mut |bytes| {
                            add(bytes);
                            Ok(())
                        });
                        streamed.map_err(|reason| ArenaError::Write { entry: item.path.clone(), reason })?;
                    }
                }
                What::Copy(value) => {
                    add(b"copy");
                    add(value.as_deref().unwrap_or_default());
                }
                What::Flag(enabled) => add(format!("flag {enabled}").as_bytes()),
                What::Module => add(b"module"),
                What::Variant(name) => add(format!("variant {name}").as_bytes()),
            }
        }
        Ok(hasher.finalize())
    }

    /// Returns the first difference between this pipeline and that of an arena, or `None` if the arena
    /// fits: it has the same tensors, in the same shapes, and the same copied fields.
    pub(crate) fn difference(&self, arena: &Arena) -> Option<String> {
        let manifest = arena.manifest();
        let mut tensors: HashMap<_, _> = manifest.tensors.iter().map(|entry| (entry.path.as_str(), entry)).collect();
        let mut copies: HashMap<_, _> = manifest.copies.iter().map(|copy| (copy.path.as_str(), ())).collect();
        for Item { path, what } in &self.items {
            match what {
                What::Tensor(tensor) => {
                    let Some(entry) = tensors.remove(path.as_str()) else {
                        return Some(format!("it does not have the tensor `{path}`"));
                    };
                    let stored = tensor.outline.as_ref().map(|outline| outline.stored_shape(&tensor.shape));
                    if entry.kind != tensor.kind
                        || (entry.shape != tensor.shape && stored.as_ref() != Some(&entry.shape))
                    {
                        return Some(format!(
                            "it has `{path}` as a {} tensor of shape {:?}, and the pipeline as a {} tensor of shape {:?}",
                            entry.kind, entry.shape, tensor.kind, tensor.shape
                        ));
                    }
                }
                What::Copy(_) if copies.remove(path.as_str()).is_none() => {
                    return Some(format!("it does not have the copied field `{path}`"));
                }
                _ => {}
            }
        }
        let left = tensors
            .into_keys()
            .map(|path| ("tensor", path))
            .chain(copies.into_keys().map(|path| ("copied field", path)));
        let (what, path) = left.min_by_key(|(_, path)| *path)?;
        Some(format!("it has the {what} `{path}`, which the pipeline does not have"))
    }
}
