//! A pipeline for tests with the driver of [`stand_in`](super::stand_in): its weights are read back, since that driver runs
//! no kernels.

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::Pipeline;

use super::stand_in::allocations;

/// Rows and columns of a layer.
pub const SIZE: usize = 2048;
/// Bytes of one layer's weight.
pub const LAYER: u64 = (SIZE * SIZE * 4) as u64;
/// Bytes of the four layers: more than burn's own pages.
pub const MODEL: u64 = 4 * LAYER;

/// Four layers, each with one number in all places.
#[derive(Pipeline)]
#[pipeline(init = Weights::new)]
pub struct Weights {
    /// The layers.
    pub layers: Vec<Linear>,
}

impl Weights {
    /// Creates the pipeline.
    pub fn new(device: &Device) -> Self {
        let layer = |index: usize| {
            let initializer = Initializer::Constant { value: (index + 1) as f64 };
            LinearConfig::new(SIZE, SIZE).with_bias(false).with_initializer(initializer).init(device)
        };
        Self { layers: (0..4).map(layer).collect() }
    }
}

#[ray_zerocopy::remote]
impl Weights {
    /// The first and the last number of each layer.
    pub fn corners(&self) -> Vec<f32> {
        let corners = |layer: &Linear| {
            let data: Vec<f32> = layer.weight.val().into_data().iter().collect();
            [data[0], data[data.len() - 1]]
        };
        self.layers.iter().flat_map(corners).collect()
    }

    /// Starts the kernels of the first layer.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers[0].forward(x)
    }

    /// The GPUs that the process may see.
    pub fn visible_gpus(&self) -> Option<String> {
        std::env::var("CUDA_VISIBLE_DEVICES").ok()
    }

    /// Id of the process that runs the method.
    pub fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// What [`Weights::corners`] returns.
pub const CORNERS: [f32; 8] = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0];

/// The allocations on the driver's devices that are large enough to be a copy.
pub fn copies() -> Vec<u64> {
    allocations().into_values().filter(|bytes| *bytes >= MODEL).collect()
}
