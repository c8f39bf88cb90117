//! The adapters of a worker, as a field of its pipeline.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use burn::tensor::Device;

use super::active::{ActiveAdapter, Bound, Pair};
use super::adapter::Adapter;
use super::layers::Layers;
use crate::error::load::LoadError;
use crate::error::lora::LoraError;
use crate::error::share::ShareError;
use crate::os::sync::Mutex;
use crate::pipeline::Pipeline;
use crate::pipeline::attach::Attacher;
use crate::pipeline::collect::Collector;

/// The adapters of a loaded pipeline, by name: a field of the pipeline. Every worker has its own set, whose
/// adapters are in memory that all workers share.
///
/// The set is empty when the pipeline is shared and loaded. Adapters are added and removed by methods of the
/// pipeline, while calls run: a call keeps the adapter that it has chosen. The base's memory is not
/// touched.
///
/// There is an example at the [module](crate::lora).
#[derive(Default)]
pub struct Adapters {
    /// The layers of the pipeline, and its device. `None` if it was not loaded from an arena.
    target: Option<(Layers, Device)>,
    named: Mutex<BTreeMap<String, Arc<Bound>>>,
}

impl Adapters {
    /// Adds an adapter.
    ///
    /// # Errors
    /// If the pipeline was not loaded from an arena, if it does not have a layer that the adapter changes, if
    /// the shapes or types of a layer do not fit, or if the name is taken.
    pub fn add(&self, name: &str, adapter: &Adapter) -> Result<(), LoraError> {
        let (layers, device) = self.target.as_ref().ok_or(LoraError::NotLoaded)?;
        let exists = || LoraError::Exists { name: name.to_owned() };
        if self.named.lock().contains_key(name) {
            return Err(exists());
        }
        let parameters = layers.parameters(adapter)?;
        let mut weights = adapter.load(device)?.into_inner();
        let mut pairs = HashMap::with_capacity(parameters.len());
        for (layer, id) in parameters {
            if let Some(pair) = weights.pairs.remove(&layer) {
                pairs.insert(id, Box::new(Pair::from(pair)));
            }
        }
        let bound = Arc::new(Bound { name: name.to_owned(), pairs, adapter: adapter.clone() });
        let mut named = self.named.lock();
        // Another thread may have added one of this name.
        if named.contains_key(name) {
            return Err(exists());
        }
        named.insert(name.to_owned(), bound);
        Ok(())
    }

    /// Removes an adapter. Its memory returns when the last call with it has ended, in the last process
    /// that has it.
    ///
    /// # Errors
    /// If there is no adapter of this name. The error names a similar one.
    pub fn remove(&self, name: &str) -> Result<(), LoraError> {
        let removed = self.named.lock().remove(name);
        removed.map(drop).ok_or_else(|| self.unknown(name))
    }

    /// Returns the adapter of a call: the one of this name, or none, for the base.
    ///
    /// # Errors
    /// If there is no adapter of this name. The error names a similar one.
    pub fn choose(&self, name: Option<&str>) -> Result<ActiveAdapter, LoraError> {
        let Some(name) = name else { return Ok(ActiveAdapter::none()) };
        let found = self.named.lock().get(name).map(Arc::clone);
        found.map(ActiveAdapter::of).ok_or_else(|| self.unknown(name))
    }

    /// Returns the adapter of a call, and adds it if this worker does not have it yet. For the workers of a
    /// [`TaskWrapper`](crate::TaskWrapper), which are not called one by one.
    ///
    /// # Errors
    /// Those of `open`, and of [`add`](Self::add).
    pub fn choose_or_add(
        &self,
        name: &str,
        open: impl FnOnce() -> Result<Adapter, LoraError>,
    ) -> Result<ActiveAdapter, LoraError> {
        let known = self.named.lock().contains_key(name);
        if !known {
            match self.add(name, &open()?) {
                // Added by another thread.
                Err(LoraError::Exists { .. }) => {}
                added => added?,
            }
        }
        self.choose(Some(name))
    }

    /// The names of all adapters, sorted.
    pub fn names(&self) -> Vec<String> {
        self.named.lock().keys().cloned().collect()
    }

    fn unknown(&self, name: &str) -> LoraError {
        const ALIKE: f64 = 0.7;
        let known = self.names();
        let alike = known.iter().map(|known| (strsim::jaro_winkler(known, name), known));
        let similar = alike.filter(|(alike, _)| *alike > ALIKE).max_by(|left, right| left.0.total_cmp(&right.0));
        LoraError::Unknown { name: name.to_owned(), similar: similar.map(|(_, known)| known.clone()), known }
    }
}

#[diagnostic::do_not_recommend]
impl Pipeline for Adapters {
    /// Collects nothing: an adapter has an arena of its own.
    fn collect(&self, collector: &mut Collector) -> Result<(), ShareError> {
        if self.named.lock().is_empty() {
            return Ok(());
        }
        let reason = "it has adapters, which are not shared with a pipeline: add them in the workers".to_owned();
        Err(ShareError::LossyCopy { field: collector.path(), reason })
    }

    fn attach(&mut self, attacher: &mut Attacher) -> Result<(), LoadError> {
        let (arena, transposed, device) = attacher.target();
        self.target = Some((Layers::of(arena, transposed), device));
        Ok(())
    }
}

impl fmt::Debug for Adapters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
