//! The pipeline of these tests.

use std::os::fd::AsFd;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::{Arena, Pipeline, load};
use serde::{Deserialize, Serialize};

#[derive(Pipeline)]
pub(crate) struct Speech {
    #[pipeline(config)]
    pub(crate) config: SpeechConfig,
    pub(crate) body: Vec<Linear>,
    pub(crate) head: Linear,
    pub(crate) labels: Vec<String>,
}

/// `layers` square matrices of `size`, and a head of one column.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct SpeechConfig {
    pub(crate) layers: usize,
    pub(crate) size: usize,
}

impl SpeechConfig {
    pub(crate) fn init(&self, device: &Device) -> Speech {
        let layer = |columns| LinearConfig::new(self.size, columns).with_bias(false).init(device);
        Speech {
            config: *self,
            body: (0..self.layers).map(|_| layer(self.size)).collect(),
            head: layer(1),
            labels: vec!["x".repeat(100_000)],
        }
    }

    pub(crate) fn layer(&self) -> Linear {
        LinearConfig::new(self.size, self.size).with_bias(false).init(&Device::flex())
    }

    /// Size of a layer of the body in bytes.
    pub(crate) fn layer_bytes(&self) -> u64 {
        4 * (self.size * self.size) as u64
    }
}

#[ray_zerocopy::remote]
impl Speech {
    pub fn forward(&self) -> Vec<f32> {
        let x = Tensor::<2>::ones([1, self.config.size], &Device::flex());
        let x = self.body.iter().fold(x, |x, layer| layer.forward(x));
        self.head.forward(x).into_data().try_to_vec().unwrap()
    }

    /// Reads every weight, and keeps the worker busy for a while, so that another call goes to another one.
    pub fn read_and_wait(&self, millis: u64) -> (u32, Vec<f32>) {
        let sums = self.sums();
        std::thread::sleep(std::time::Duration::from_millis(millis));
        (std::process::id(), sums)
    }

    /// Reads every weight.
    pub fn sums(&self) -> Vec<f32> {
        let layers = self.body.iter().chain([&self.head]);
        layers.map(|layer| layer.weight.val().sum().into_scalar()).collect()
    }
}

/// The small pipeline of most tests.
pub(crate) fn small() -> Speech {
    SpeechConfig { layers: 4, size: 64 }.init(&Device::flex())
}

/// What a pipeline computes that is loaded from an arena. Checks that nothing is copied.
pub(crate) fn computed(arena: &Arena) -> (Vec<f32>, Vec<f32>) {
    let loaded = load::<Speech>(arena, &Device::flex()).unwrap();
    assert!(loaded.copied().is_empty());
    (loaded.forward(), loaded.sums())
}

/// What the pipeline itself computes.
pub(crate) fn expected(pipeline: &Speech) -> (Vec<f32>, Vec<f32>) {
    (pipeline.forward(), pipeline.sums())
}

/// The inode of an arena's container.
pub(crate) fn inode(arena: &Arena) -> u64 {
    rustix::fs::fstat(arena.fd().unwrap().as_fd()).unwrap().st_ino
}
