//! A model, and how answers are compared.

use burn::module::Param;
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::tensor::activation::{gelu, relu, sigmoid};
use burn::tensor::{Bool, Device, Distribution, Tensor, TensorData};
use ray_zerocopy::Pipeline;
use ray_zerocopy::jit::{self, TracedGraph, Values};
use serde::{Deserialize, Serialize};

pub(crate) const WIDTH: usize = 24;

/// A transformer block, and what a compiler has to tell apart from it.
#[derive(Pipeline)]
#[pipeline(init = Model::new)]
pub(crate) struct Model {
    attention: MultiHeadAttention,
    norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
    /// Stored by columns, as PyTorch does.
    columns: Linear,
    /// The same weight twice.
    tied: [Linear; 2],
}

impl Model {
    pub(crate) fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let random = |layer: &mut LayerNorm| {
            let gamma = Tensor::random([WIDTH], Distribution::Default, device);
            layer.gamma = Param::from_tensor(gamma);
        };
        let mut norm = LayerNormConfig::new(WIDTH).init(device);
        random(&mut norm);
        let tied: Linear = linear(WIDTH, WIDTH);
        Self {
            attention: MultiHeadAttentionConfig::new(WIDTH, 3).with_dropout(0.0).init(device),
            norm,
            wide: linear(WIDTH, 50),
            narrow: linear(50, WIDTH),
            columns: LinearConfig::new(WIDTH, 33).with_layout(LinearLayout::Col).with_bias(false).init(device),
            tied: [tied.clone(), tied],
        }
    }

    /// `[batch, length, WIDTH]` and `[batch, length]` to `[batch, length, 33]`.
    pub(crate) fn forward(&self, x: Tensor<3>, padding: Tensor<2, Bool>) -> Tensor<3> {
        let attended = self.attention.forward(MhaInput::self_attn(x.clone()).mask_pad(padding)).context;
        let x = self.norm.forward(x + attended);
        let x = self.narrow.forward(gelu(self.wide.forward(x.clone()))) + x;
        // Read twice, so it cannot become part of what follows.
        let both = self.tied[0].forward(x.clone());
        let x = relu(both.clone()) + sigmoid(self.tied[1].forward(both)).tanh();
        self.columns.forward(x)
    }
}

pub(crate) fn inputs(batch: usize, length: usize) -> (Tensor<3>, Tensor<2, Bool>) {
    let device = Device::flex();
    let x = Tensor::random([batch, length, WIDTH], Distribution::Normal(0.0, 1.0), &device);
    // The first sentence has no padding, each of the others one more token of it.
    let rows: Vec<bool> = (0..batch * length).map(|at| at % length + at / length >= length).collect();
    (x, Tensor::from_data(TensorData::new(rows, [batch, length]), &device))
}

pub(crate) fn traced(model: &Model) -> TracedGraph {
    let (x, padding) = inputs(3, 5);
    jit::trace(model)
        .input("x", x)
        .input("padding", padding)
        .symbol("batch", [("x", 0), ("padding", 0)])
        .symbol("length", [("x", 1), ("padding", 1)])
        .forward(|model, inputs| Ok(model.forward(inputs.float("x")?, inputs.bool("padding")?)))
        .unwrap()
}

pub(crate) fn values(batch: usize, length: usize) -> (Values, TensorData, Model) {
    let model = Model::new(&Device::flex());
    let (x, padding) = inputs(batch, length);
    let expected = model.forward(x.clone(), padding.clone()).into_data();
    (Values::new().with("x", x).with("padding", padding), expected, model)
}

/// The largest difference, in units of the largest number.
pub(crate) fn difference(found: &TensorData, expected: &TensorData) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let pairs = || found.iter::<f32>().zip(expected.iter::<f32>());
    let largest = pairs().map(|(_, expected)| expected.abs()).fold(0.0, f32::max);
    pairs().map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max) / largest
}

/// The norm of the change in units of the norm.
pub(crate) fn relative(found: &TensorData, expected: &TensorData) -> f64 {
    let pairs = found.iter::<f64>().zip(expected.iter::<f64>());
    let (change, all) = pairs.fold((0.0, 0.0), |(change, all), (found, expected)| {
        (change + (found - expected).powi(2), all + expected.powi(2))
    });
    (change / all).sqrt()
}

/// Linear layers, one after the other.
#[derive(Pipeline)]
pub(crate) struct Wide {
    #[pipeline(config)]
    pub(crate) config: WideConfig,
    pub(crate) layers: Vec<Linear>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct WideConfig {
    pub(crate) width: usize,
    pub(crate) layers: usize,
}

impl WideConfig {
    pub(crate) fn init(&self, device: &Device) -> Wide {
        let layer = |_| LinearConfig::new(self.width, self.width).init(device);
        Wide { config: self.clone(), layers: (0..self.layers).map(layer).collect() }
    }
}
