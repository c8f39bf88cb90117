//! The traced pipelines: one dominated by overhead, one with many operations, one that reads much
//! memory.

use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use serde::{Deserialize, Serialize};

/// Linear layers with a ReLU between them.
#[derive(Clone, Serialize, Deserialize)]
pub struct StackConfig {
    /// Rows and columns of a layer.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
}

/// See [`StackConfig`].
#[derive(Pipeline)]
pub struct Stack {
    #[pipeline(config)]
    config: StackConfig,
    layers: Vec<Linear>,
}

impl StackConfig {
    /// Makes the model.
    pub fn init(&self, device: &Device) -> Stack {
        let layer = |_| LinearConfig::new(self.width, self.width).init(device);
        Stack { config: self.clone(), layers: (0..self.layers).map(layer).collect() }
    }
}

impl Stack {
    /// Maps `[batch, width]` to `[batch, width]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| relu(layer.forward(x)))
    }
}

/// Transformer blocks, which consist of many operations.
#[derive(Clone, Serialize, Deserialize)]
pub struct BlocksConfig {
    /// Rows and columns of a layer.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
}

/// See [`BlocksConfig`].
#[derive(Pipeline)]
pub struct Blocks {
    #[pipeline(config)]
    config: BlocksConfig,
    attention: Vec<MultiHeadAttention>,
    norms: Vec<LayerNorm>,
    inner: Vec<Linear>,
    outer: Vec<Linear>,
}

impl BlocksConfig {
    /// Makes the model.
    pub fn init(&self, device: &Device) -> Blocks {
        let Self { width, layers } = *self;
        let all = || 0..layers;
        Blocks {
            config: self.clone(),
            attention: all().map(|_| MultiHeadAttentionConfig::new(width, 4).with_dropout(0.0).init(device)).collect(),
            norms: all().map(|_| LayerNormConfig::new(width).init(device)).collect(),
            inner: all().map(|_| LinearConfig::new(width, 4 * width).init(device)).collect(),
            outer: all().map(|_| LinearConfig::new(4 * width, width).init(device)).collect(),
        }
    }
}

impl Blocks {
    /// Maps `[batch, length, width]` to `[batch, length, width]`.
    pub fn forward(&self, mut x: Tensor<3>) -> Tensor<3> {
        for (((attention, norm), inner), outer) in
            self.attention.iter().zip(&self.norms).zip(&self.inner).zip(&self.outer)
        {
            let attended = attention.forward(MhaInput::self_attn(x.clone())).context;
            let hidden = norm.forward(x + attended);
            x = outer.forward(gelu(inner.forward(hidden.clone()))) + hidden;
        }
        x
    }
}
