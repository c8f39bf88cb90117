//! A model of any size: pairs of layers whose results are summed, so that the result depends on
//! every weight.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use serde::{Deserialize, Serialize};

/// A forward pass, measured in the process that runs it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Forward {
    /// Id of the process.
    pub pid: u32,
    /// Duration in microseconds.
    pub took_us: f64,
    /// Checksum of the result.
    pub checksum: u64,
}

/// Reads all of `bytes` and returns their checksum.
pub fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(words, |sum, &byte| sum.wrapping_add(byte.into()))
}

/// A model of linear layers.
#[derive(Pipeline)]
pub struct Model {
    #[pipeline(config)]
    config: ModelConfig,
    layers: Vec<Linear>,
}

/// Layers without bias, alternately from `narrow` to `wide` features and back.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Number of layers, each with one tensor.
    pub tensors: u32,
    narrow: u32,
    wide: u32,
    batch: u32,
}

impl ModelConfig {
    /// Configures weights of `mib` MiB, or slightly less if they cannot be split evenly, and
    /// forward passes of `batch` inputs.
    ///
    /// # Errors
    /// If `tensors` is odd, or a layer would be empty.
    pub fn new(mib: u32, tensors: u32, batch: u32) -> Result<Self> {
        ensure!(tensors.is_multiple_of(2), "--tensors {tensors}: it must be even, since layers come in pairs");
        let elements = (u64::from(mib) << 18) / u64::from(tensors);
        let narrow = 1_u64 << (elements.max(1).ilog2() / 2);
        let wide = elements / narrow;
        ensure!(wide > 0, "--mib {mib} --tensors {tensors}: each tensor would have less than one element");
        Ok(Self { tensors, narrow: narrow as u32, wide: u32::try_from(wide)?, batch })
    }

    /// Returns the size of the weights.
    pub fn bytes(&self) -> u64 {
        4 * u64::from(self.tensors) * u64::from(self.narrow) * u64::from(self.wide)
    }

    /// Returns the total size of the input and of the results of all layers.
    pub fn activations(&self) -> u64 {
        let pairs = u64::from(self.tensors / 2);
        4 * u64::from(self.batch) * (pairs * u64::from(self.narrow + self.wide) + u64::from(self.narrow))
    }

    /// Creates the model. Weights are initialised lazily.
    pub fn init(&self, device: &Device) -> Model {
        let (narrow, wide) = (self.narrow as usize, self.wide as usize);
        let layer = |index| match index % 2 {
            0 => LinearConfig::new(narrow, wide).with_bias(false).init(device),
            _ => LinearConfig::new(wide, narrow).with_bias(false).init(device),
        };
        Model { config: *self, layers: (0..self.tensors).map(layer).collect() }
    }

    /// Loads the model from a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be read, or contains another model.
    pub fn load(&self, file: &Path) -> Result<Model> {
        let mut model = self.init(&Device::flex());
        let mut store = SafetensorsStore::from_file(file);
        let loaded =
            model.layers.load_from(&mut store).with_context(|| format!("{} cannot be read", file.display()))?;
        ensure!(loaded.is_success(), "{} does not contain the model: {loaded:?}", file.display());
        Ok(model)
    }
}

impl Model {
    /// Writes the weights to a safetensors file.
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
    /// Runs a forward pass, which reads every weight.
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

    /// Runs a forward pass and keeps the worker busy for a while, so that the next call goes to
    /// another worker.
    pub fn forward_and_wait(&self, pause: Duration) -> Forward {
        let forward = self.forward();
        std::thread::sleep(pause);
        forward
    }
}
