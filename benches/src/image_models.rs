//! The traced pipelines of convolutions: one of images, one of sound.

use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Linear, LinearConfig, Lstm, LstmConfig, LstmState, PaddingConfig1d, PaddingConfig2d,
};
use burn::prelude::Module;
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;
use serde::{Deserialize, Serialize};

/// A convolution without bias, and a batch norm.
#[derive(Module, Debug)]
pub struct Normed {
    convolution: Conv2d,
    norm: BatchNorm,
}

impl Normed {
    fn new(channels: [usize; 2], kernel: usize, stride: usize, device: &Device) -> Self {
        let margin = kernel / 2;
        let padding = PaddingConfig2d::Explicit(margin, margin, margin, margin);
        let convolution = Conv2dConfig::new(channels, [kernel; 2]).with_stride([stride; 2]).with_padding(padding);
        Self {
            convolution: convolution.with_bias(false).init(device),
            norm: BatchNormConfig::new(channels[1]).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.convolution.forward(x))
    }
}

/// A block of ResNet-18: two convolutions, and the sum with its input.
#[derive(Module, Debug)]
pub struct Block {
    first: Normed,
    second: Normed,
    /// Where the sizes of input and output differ.
    shortcut: Option<Normed>,
}

impl Block {
    fn new(from: usize, to: usize, device: &Device) -> Self {
        let stride = if from == to { 1 } else { 2 };
        Self {
            first: Normed::new([from, to], 3, stride, device),
            second: Normed::new([to, to], 3, 1, device),
            shortcut: (from != to).then(|| Normed::new([from, to], 1, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = self.second.forward(relu(self.first.forward(x.clone())));
        relu(inner + self.shortcut.as_ref().map_or_else(|| x.clone(), |shortcut| shortcut.forward(x.clone())))
    }
}

/// ResNet-18: images to the scores of a number of classes.
#[derive(Clone, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// Channels after the first convolution: 64 in ResNet-18.
    pub channels: usize,
    /// Number of classes.
    pub classes: usize,
}

/// See [`ResNetConfig`].
#[derive(Pipeline)]
pub struct ResNet {
    #[pipeline(config)]
    config: ResNetConfig,
    stem: Normed,
    pool: MaxPool2d,
    blocks: Vec<Block>,
    mean: AdaptiveAvgPool2d,
    head: Linear,
}

impl ResNetConfig {
    /// Makes the model.
    pub fn init(&self, device: &Device) -> ResNet {
        let Self { channels, classes } = *self;
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        let widths = [1, 1, 1, 2, 2, 4, 4, 8, 8].map(|factor| factor * channels);
        ResNet {
            config: self.clone(),
            stem: Normed::new([3, channels], 7, 2, device),
            pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(padding).init(),
            blocks: widths.windows(2).map(|pair| Block::new(pair[0], pair[1], device)).collect(),
            mean: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            head: LinearConfig::new(8 * channels, classes).init(device),
        }
    }
}

impl ResNet {
    /// Maps `[batch, 3, height, width]` to `[batch, classes]`.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.stem.forward(x)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.head.forward(self.mean.forward(x).flatten(1, 3))
    }
}

/// A detector of speech with the layers of Silero's: convolutions over the frequencies of a signal, an LSTM, a decoder.
#[derive(Clone, Serialize, Deserialize)]
pub struct DetectorConfig {
    /// Width of the LSTM.
    pub width: usize,
}

/// See [`DetectorConfig`].
#[derive(Pipeline)]
pub struct Detector {
    #[pipeline(config)]
    config: DetectorConfig,
    /// Real and imaginary parts of 129 frequencies, every 128 samples.
    frequencies: Conv1d,
    encoder: Vec<Conv1d>,
    lstm: Lstm,
    decoder: Conv1d,
}

impl DetectorConfig {
    /// Samples of a call.
    pub const SAMPLES: usize = 640;

    /// Makes the model.
    pub fn init(&self, device: &Device) -> Detector {
        let width = self.width;
        let layer = |from, to, stride| {
            let padding = PaddingConfig1d::Explicit(1, 1);
            Conv1dConfig::new(from, to, 3).with_stride(stride).with_padding(padding).init(device)
        };
        Detector {
            config: self.clone(),
            frequencies: Conv1dConfig::new(1, 258, 256).with_stride(128).with_bias(false).init(device),
            encoder: vec![layer(129, 128, 1), layer(128, 64, 2), layer(64, 64, 2), layer(64, width, 1)],
            lstm: LstmConfig::new(width, width, true).init(device),
            decoder: Conv1dConfig::new(width, 1, 1).init(device),
        }
    }
}

impl Detector {
    /// Maps `[batch, SAMPLES]`, and the cell and the hidden state of `[batch, width]`, to `[batch, 1]` and these states.
    pub fn forward(&self, samples: Tensor<2>, cell: Tensor<2>, hidden: Tensor<2>) -> [Tensor<2>; 3] {
        let parts = self.frequencies.forward(samples.unsqueeze_dim(1));
        let (real, imaginary) = (parts.clone().narrow(1, 0, 129), parts.narrow(1, 129, 129));
        let loudness = (real.clone() * real + imaginary.clone() * imaginary).sqrt();
        let x = self.encoder.iter().fold(loudness, |x, layer| relu(layer.forward(x)));
        let (states, LstmState { cell, hidden }) =
            self.lstm.forward(x.swap_dims(1, 2), Some(LstmState::new(cell, hidden)));
        let probabilities = sigmoid(self.decoder.forward(relu(states.swap_dims(1, 2))));
        [probabilities.mean_dim(2).squeeze_dim(2), cell, hidden]
    }
}
