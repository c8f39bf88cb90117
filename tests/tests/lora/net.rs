//! The pipeline of these tests.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use ray_zerocopy::lora::{ActiveAdapter, Adapter, Adapters};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

/// The network of `tests/peft/make.py`.
#[derive(Module, Debug)]
pub(crate) struct Net {
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

impl Net {
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>, adapter: &ActiveAdapter) -> Tensor<D> {
        adapter.linear(&self.down, relu(adapter.linear(&self.up, x)))
    }
}

#[derive(Pipeline)]
pub(crate) struct Model {
    #[pipeline(config)]
    pub(crate) config: ModelConfig,
    pub(crate) net: Net,
    pub(crate) adapters: Adapters,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ModelConfig {
    pub(crate) narrow: usize,
    pub(crate) wide: usize,
    /// Whether the weights are stored as PyTorch stores them.
    pub(crate) is_column: bool,
}

impl ModelConfig {
    /// That of `tests/peft`.
    pub(crate) const PEFT: Self = Self { narrow: 16, wide: 48, is_column: false };

    pub(crate) fn init(&self, device: &Device) -> Model {
        let layout = || if self.is_column { LinearLayout::Col } else { LinearLayout::Row };
        let up = LinearConfig::new(self.narrow, self.wide).with_layout(layout()).init(device);
        let down = LinearConfig::new(self.wide, self.narrow).with_bias(false).with_layout(layout()).init(device);
        Model { config: *self, net: Net { up, down }, adapters: Adapters::default() }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[ray_zerocopy::remote]
impl Model {
    pub fn add(&self, name: String, path: PathBuf) -> Result<u32, String> {
        let adapter = Adapter::options().rename("^", "net.").map_err(text)?.open(path).map_err(text)?;
        self.adapters.add(&name, &adapter).map_err(text)?;
        Ok(std::process::id())
    }

    pub fn remove(&self, name: String) -> Result<(), String> {
        self.adapters.remove(&name).map_err(text)
    }

    pub fn names(&self) -> Vec<String> {
        self.adapters.names()
    }

    pub fn run(&self, x: Tensor<3>, adapter: Option<String>) -> Result<Tensor<3>, String> {
        let adapter = self.adapters.choose(adapter.as_deref()).map_err(text)?;
        Ok(self.net.forward(x, &adapter))
    }

    /// Opens the adapter on its first use in a worker.
    pub fn run_with(&self, x: Tensor<3>, path: PathBuf) -> Result<Tensor<3>, String> {
        let open = || Adapter::options().rename("^", "net.")?.open(&path);
        let adapter = self.adapters.choose_or_add(&path.display().to_string(), open).map_err(text)?;
        Ok(self.net.forward(x, &adapter))
    }
}

/// The folder that `make.py` has written.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peft")
}

/// The tensors of `results.safetensors`.
pub(crate) fn results() -> HashMap<String, Tensor<3>> {
    let bytes = std::fs::read(folder().join("results.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let of = |(name, view): (String, TensorView<'_>)| {
        assert_eq!((view.dtype(), view.shape()), (Dtype::F32, &[3, 5, 16][..]));
        let (words, _) = view.data().as_chunks::<4>();
        let numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let tensor = Tensor::<1>::from_floats(&numbers[..], &Device::flex()).reshape([3, 5, 16]);
        (name, tensor)
    };
    tensors.tensors().into_iter().map(of).collect()
}

/// The largest difference of two results, relative to the largest number of the second.
pub(crate) fn difference<const D: usize>(left: &Tensor<D>, right: &Tensor<D>) -> f32 {
    let largest: f32 = right.clone().abs().max().into_scalar();
    let difference: f32 = (left.clone() - right.clone()).abs().max().into_scalar();
    difference / largest
}
