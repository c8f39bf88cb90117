//! The pipeline of an adapter's arena: its pairs, by the layers that they change.

use std::collections::BTreeMap;

use burn::module::{LoraAdapter, Param, ParamId};
use burn::tensor::{Device, Tensor};
use ray_zerocopy_derive::Pipeline;
use serde::{Deserialize, Serialize};

/// The pairs of an adapter.
#[derive(Pipeline)]
pub(super) struct AdapterWeights {
    #[pipeline(config)]
    pub config: AdapterConfig,
    /// By the paths of the layers.
    pub pairs: BTreeMap<String, LoraAdapter>,
}

/// What an adapter changes. Rebuilds the pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct AdapterConfig {
    pub layers: Vec<LayerConfig>,
}

/// The pair of a layer: `a` of shape `[inputs, rank]`, and `b` of shape `[rank, outputs]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LayerConfig {
    /// Path in the pipeline, without `.weight`.
    pub path: String,
    pub inputs: usize,
    pub outputs: usize,
    pub rank: usize,
    pub scale: f64,
}

impl AdapterConfig {
    /// Creates the pipeline with parameters that are not initialised.
    pub(super) fn init(&self, device: &Device) -> AdapterWeights {
        let pairs = self.layers.iter().map(|layer| (layer.path.clone(), layer.init(device)));
        AdapterWeights { config: self.clone(), pairs: pairs.collect() }
    }
}

impl LayerConfig {
    fn init(&self, device: &Device) -> LoraAdapter {
        LoraAdapter {
            a: self.parameter("a", [self.inputs, self.rank], device),
            b: self.parameter("b", [self.rank, self.outputs], device),
            scale: self.scale,
        }
    }

    /// Creates a parameter whose id follows from its name: each process that makes the arena of an adapter
    /// makes the same one.
    fn parameter(&self, factor: &str, shape: [usize; 2], device: &Device) -> Param<Tensor<2>> {
        let hash = blake3::hash(format!("{factor} {}", self.path).as_bytes());
        let id = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let zeros = move |device: &Device, _: bool| Tensor::zeros(shape, device);
        Param::uninitialized(ParamId::from(id), zeros, device.clone(), false, shape.into())
    }
}
