//! What is computed: layers whose weights are much larger than everything else, and an encoder, where they are not.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use benches::links::checksum;
use benches::machine::processor_ms;
use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use ray_zerocopy::Pipeline;
use serde::{Deserialize, Serialize};

/// A model with both.
#[derive(Pipeline)]
pub struct Net {
    #[pipeline(config)]
    config: NetConfig,
    linear: Vec<Linear>,
    encoder: TransformerEncoder,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct NetConfig {
    pub layers: usize,
    pub width: usize,
    pub encoder_width: usize,
    pub encoder_layers: usize,
}

impl NetConfig {
    pub fn init(&self, device: &Device) -> Net {
        let Self { layers, width, encoder_width, encoder_layers } = *self;
        let encoder = TransformerEncoderConfig::new(encoder_width, 4 * encoder_width, 4, encoder_layers);
        Net {
            config: *self,
            linear: (0..layers).map(|_| LinearConfig::new(width, width).init(device)).collect(),
            encoder: encoder.init(device),
        }
    }
}

/// A forward pass to be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Of the linear layers, on so many inputs: the weights decide.
    Linear(usize),
    /// Of the encoder, on so many sequences of so many tokens: activations count as much.
    Encoder(usize, usize),
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Linear(batch) => write!(f, "linear, batch {batch}"),
            Self::Encoder(batch, tokens) => write!(f, "encoder, batch {batch} x {tokens} tokens"),
        }
    }
}

/// Numbers between -1 and 1, the same each time.
fn input(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A forward pass, as the process that computes it sees it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Forward {
    pub took_ms: f64,
    /// Of all threads.
    pub processor_ms: f64,
    pub checksum: u64,
}

impl Net {
    /// From numbers in memory to numbers in memory.
    pub fn run(&self, workload: Workload) -> Result<Forward> {
        let before = processor_ms()?;
        let device = Device::flex();
        let NetConfig { width, encoder_width, .. } = self.config;
        let (result, begun) = match workload {
            Workload::Linear(batch) => {
                let data = black_box(TensorData::new(input(batch * width), [batch, width]));
                let begun = Instant::now();
                let x = Tensor::<2>::from_data(data, &device);
                (self.linear.iter().fold(x, |x, layer| layer.forward(x)).into_data(), begun)
            }
            Workload::Encoder(batch, tokens) => {
                let data = TensorData::new(input(batch * tokens * encoder_width), [batch, tokens, encoder_width]);
                let data = black_box(data);
                let begun = Instant::now();
                let x = Tensor::<3>::from_data(data, &device);
                (self.encoder.forward(TransformerEncoderInput::new(x)).into_data(), begun)
            }
        };
        let took_ms = begun.elapsed().as_secs_f64() * 1e3;
        let processor_ms = processor_ms()? - before;
        Ok(Forward { took_ms, processor_ms, checksum: checksum(result.as_bytes()) })
    }

    /// The same model with a copy of each weight on the heap.
    pub fn on_heap(&self) -> Self {
        Self {
            config: self.config,
            linear: self.linear.clone().map(&mut ToHeap),
            encoder: self.encoder.clone().map(&mut ToHeap),
        }
    }

    /// Where the first weight begins, modulo 64.
    pub fn alignment(&self) -> Option<usize> {
        match self.linear.first()?.weight.val().into_dispatch().kind {
            DispatchTensorKind::Flex(BackendTensor::Float(weight)) => Some(weight.bytes().as_ptr() as usize % 64),
            #[allow(unreachable_patterns, reason = "each backend that is compiled in adds a variant")]
            _ => None,
        }
    }
}

struct ToHeap;

impl ModuleMapper for ToHeap {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let (shape, device) = (tensor.dims(), tensor.device());
            // An iterator over the numbers: `to_vec` could hand on the borrowed bytes.
            let numbers: Vec<f32> = tensor.into_data().iter::<f32>().collect();
            Tensor::from_data(TensorData::new(numbers, shape), &device)
        })
    }
}
