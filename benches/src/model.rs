//! The model: pairs of layers whose results are added up, so that every weight has a part in every bit of the result.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use serde::{Deserialize, Serialize};

use crate::links::checksum;

/// A forward pass, as the process that computes it sees it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Forward {
    /// That process.
    pub pid: u32,
    /// How long it took, in microseconds.
    pub took_us: f64,
    /// Of every bit of the result.
    pub checksum: u64,
}

/// Linear layers, and nothing else.
#[derive(Pipeline)]
pub struct Model {
    #[pipeline(config)]
    config: ModelConfig,
    layers: Vec<Linear>,
}

/// Layers without bias, by turns from `narrow` to `wide` and back.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ModelConfig {
    /// How many layers there are, each with one tensor.
    pub tensors: u32,
    narrow: u32,
    wide: u32,
    batch: u32,
}

impl ModelConfig {
    /// Weights of `mib` MiB, or a bit less if they cannot be split evenly, that compute on `batch` inputs at a time.
    ///
    /// # Errors
    /// If a layer would have no weights, or another one would be left over.
    pub fn new(mib: u32, tensors: u32, batch: u32) -> Result<Self> {
        ensure!(tensors.is_multiple_of(2), "--tensors {tensors}: layers come in pairs, so it has to be even");
        let elements = (u64::from(mib) << 18) / u64::from(tensors);
        let narrow = 1_u64 << (elements.max(1).ilog2() / 2);
        let wide = elements / narrow;
        ensure!(wide > 0, "--mib {mib} --tensors {tensors}: less than one number for each tensor");
        Ok(Self { tensors, narrow: narrow as u32, wide: u32::try_from(wide)?, batch })
    }

    /// The size of the weights.
    pub fn bytes(&self) -> u64 {
        4 * u64::from(self.tensors) * u64::from(self.narrow) * u64::from(self.wide)
    }

    /// The size of the results of all layers, and of the input.
    pub fn activations(&self) -> u64 {
        let pairs = u64::from(self.tensors / 2);
        4 * u64::from(self.batch) * (pairs * u64::from(self.narrow + self.wide) + u64::from(self.narrow))
    }

    /// The model, with weights made up when they are asked for.
    pub fn init(&self, device: &Device) -> Model {
        let (narrow, wide) = (self.narrow as usize, self.wide as usize);
        let layer = |index| match index % 2 {
            0 => LinearConfig::new(narrow, wide).with_bias(false).init(device),
            _ => LinearConfig::new(wide, narrow).with_bias(false).init(device),
        };
        Model { config: *self, layers: (0..self.tensors).map(layer).collect() }
    }

    /// The model with the weights that are in a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be read, or holds something else.
    pub fn load(&self, file: &Path) -> Result<Model> {
        let mut model = self.init(&Device::flex());
        let mut store = SafetensorsStore::from_file(file);
        let loaded =
            model.layers.load_from(&mut store).with_context(|| format!("{} cannot be read", file.display()))?;
        ensure!(loaded.is_success(), "{} does not hold the model: {loaded:?}", file.display());
        Ok(model)
    }
}

impl Model {
    /// Writes the weights into a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        let mut store = SafetensorsStore::from_file(file);
        self.layers.save_into(&mut store).with_context(|| format!("{} cannot be written", file.display()))
    }
}

#[ray_zerocopy::remote]
impl Model {
    /// A forward pass, which reads every weight.
    pub fn forward(&self) -> Forward {
        let begun = Instant::now();
        let x = Tensor::<2>::ones([self.config.batch as usize, self.config.narrow as usize], &Device::flex());
        let sum = self
            .layers
            .chunks_exact(2)
            .fold(Tensor::zeros_like(&x), |sum, pair| sum + pair[1].forward(pair[0].forward(x.clone())));
        let result = sum.into_data();
        let took_us = begun.elapsed().as_secs_f64() * 1e6;
        Forward { pid: std::process::id(), took_us, checksum: checksum(result.as_bytes()) }
    }

    /// A forward pass in a worker that is busy for a while afterwards, so that another call goes to another worker.
    pub fn forward_and_wait(&self, pause: Duration) -> Forward {
        let forward = self.forward();
        std::thread::sleep(pause);
        forward
    }
}
