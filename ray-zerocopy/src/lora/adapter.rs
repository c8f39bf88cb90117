//! An adapter in an arena of its own.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use burn::module::{LoraAdapter, Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor};
use regex::Regex;

use super::peft;
use super::weights::{AdapterConfig, AdapterWeights, LayerConfig};
use crate::arena::arena::Arena;
use crate::arena::manifest::ArenaId;
use crate::checkpoint::names::pattern;
use crate::error::lora::LoraError;
use crate::pipeline::load::{Loaded, load};
use crate::pipeline::share::share;

/// A LoRA adapter: pairs of low-rank matrices for the linear layers of a pipeline, in an arena of its own.
/// Cheap to clone.
///
/// Processes of one user that open the same folder or file get the same memory, whether they are workers of
/// one pool or not. There is an example at the [module](crate::lora).
#[derive(Clone)]
pub struct Adapter {
    arena: Arena,
    config: Arc<AdapterConfig>,
}

/// A layer that an adapter changes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AdapterLayer<'a> {
    /// The path of the layer in the pipeline.
    pub path: &'a str,
    /// The number of its inputs.
    pub inputs: usize,
    /// The number of its outputs.
    pub outputs: usize,
    /// The rank of the pair.
    pub rank: usize,
    /// The factor of the change.
    pub scale: f64,
}

/// Options of [`Adapter::open`].
#[derive(Debug, Clone, Default)]
pub struct AdapterOptions {
    rename: Vec<(Regex, String)>,
    floats: Option<DType>,
}

impl AdapterOptions {
    /// Renames the layers of PEFT's file to the paths of the pipeline: each match of the regular expression
    /// `from` is replaced by `to`, as [`Checkpoint::rename`](crate::Checkpoint::rename) does. PEFT's prefix
    /// `base_model.model.` has been removed before.
    ///
    /// # Errors
    /// If `from` is not a regular expression, or if `to` refers to a group that it does not have.
    pub fn rename(mut self, from: &str, to: &str) -> Result<Self, LoraError> {
        self.rename.push((pattern(from, to)?, to.to_owned()));
        Ok(self)
    }

    /// Casts the pairs to `dtype`, that of the base. A saved adapter is not cast.
    #[must_use]
    pub fn cast_floats(mut self, dtype: DType) -> Self {
        self.floats = Some(dtype);
        self
    }

    /// Opens an adapter: see [`Adapter::open`].
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Adapter, LoraError> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Adapter::from_arena(&Arena::shared_file(path, |_| ())?);
        }
        let (checkpoint, config) = peft::open(path, &self.rename, self.floats)?;
        let arena = Arena::shared(&checkpoint, &config.init(&Device::flex()))?;
        Ok(Adapter { arena, config: Arc::new(config) })
    }
}

impl Adapter {
    /// Opens an adapter: a folder that PEFT has saved, or a file that [`save`](Self::save) has written.
    ///
    /// A folder of PEFT has `adapter_config.json` and `adapter_model.safetensors` (or `.bin`). Ranks,
    /// alphas and `use_rslora` are those of the config. Its tensors are transposed to burn's layout, once
    /// for all processes.
    ///
    /// # Errors
    /// If the config or a tensor is not that of a LoRA adapter of linear layers, or if a file cannot be
    /// read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        Self::options().open(path)
    }

    /// Options for [`open`](Self::open): other names of the layers, and another type of their elements.
    pub fn options() -> AdapterOptions {
        AdapterOptions::default()
    }

    /// Opens the adapter in an arena.
    ///
    /// # Errors
    /// If the arena is not that of an adapter.
    pub fn from_arena(arena: &Arena) -> Result<Self, LoraError> {
        let weights = load::<AdapterWeights>(arena, &Device::flex())?;
        Ok(Self { arena: arena.clone(), config: Arc::new(weights.config.clone()) })
    }

    /// Takes the adapter of a module that burn has trained, see [`Module::apply_lora`]. `path` is the path
    /// of the module in the pipeline, or empty if the layers' paths start at the module. `scale` is
    /// `alpha / rank` of burn's [`Lora`](burn::module::Lora).
    ///
    /// The weights of the module itself are not read.
    ///
    /// # Errors
    /// If the module has no adapter, or there is no memory.
    pub fn from_module<M: Module>(path: &str, module: &M, scale: f64) -> Result<Self, LoraError> {
        let mut found = Pairs {
            path: path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            ..Pairs::default()
        };
        module.visit(&mut found);
        let mut config = AdapterConfig { layers: Vec::new() };
        let mut pairs = Vec::new();
        for (layer, [a, b]) in found.pairs {
            let (Some(a), Some(b)) = (a, b) else { continue };
            let ([inputs, rank], [_, outputs]) = (a.dims(), b.dims());
            config.layers.push(LayerConfig { path: layer.clone(), inputs, outputs, rank, scale });
            pairs.push((layer, [a, b]));
        }
        if pairs.is_empty() {
            return Err(LoraError::NoAdapter { module: path.to_owned() });
        }
        let mut weights = config.init(&Device::flex());
        for (layer, [a, b]) in pairs {
            if let Some(pair) = weights.pairs.get_mut(&layer) {
                let (a_id, b_id) = (pair.a.id, pair.b.id);
                *pair = LoraAdapter { a: Param::initialized(a_id, a), b: Param::initialized(b_id, b), scale };
            }
        }
        Ok(Self { arena: share(&weights)?, config: Arc::new(config) })
    }

    /// Writes the adapter to a file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LoraError> {
        Ok(self.arena.save(path)?)
    }

    /// The arena of the pairs.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// The id of the adapter's content.
    pub fn id(&self) -> ArenaId {
        self.arena.id()
    }

    /// The layers that the adapter changes.
    pub fn layers(&self) -> impl Iterator<Item = AdapterLayer<'_>> {
        self.config.layers.iter().map(|layer| {
            let LayerConfig { path, inputs, outputs, rank, scale } = layer;
            AdapterLayer { path, inputs: *inputs, outputs: *outputs, rank: *rank, scale: *scale }
        })
    }

    /// Loads the pairs on a device.
    pub(super) fn load(&self, device: &Device) -> Result<Loaded<AdapterWeights>, LoraError> {
        Ok(load(&self.arena, device)?)
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter").field("id", &self.id()).field("layers", &self.config.layers.len()).finish()
    }
}

/// burn's walk over a module, which finds the pairs.
#[derive(Default)]
struct Pairs {
    path: Vec<String>,
    /// `a` and `b` by the path of the layer.
    pairs: std::collections::BTreeMap<String, [Option<Tensor<2>>; 2]>,
}

impl ModuleVisitor for Pairs {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let [layer @ .., weight, lora, factor] = &self.path[..] else { return };
        let number = match factor.as_str() {
            "a" => 0,
            "b" => 1,
            _ => return,
        };
        if D == 2 && weight == "weight" && lora == "lora" {
            let tensor = param.val();
            let shape: [usize; 2] = [tensor.dims()[0], tensor.dims()[D - 1]];
            self.pairs.entry(layer.join(".")).or_default()[number] = Some(tensor.reshape(shape));
        }
    }
}
