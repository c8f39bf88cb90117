//! Pipelines that tell what a worker sees of itself and of its weights.

use std::collections::{BTreeMap, BTreeSet};

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use ray_zerocopy::Pipeline;
use serde::{Deserialize, Serialize};

use crate::machine::{cores, mapped_arenas, mapping_of, pages};

/// Rows and columns of a [`Probe`].
const SIZE: usize = 1024;
/// Its size: 4 MiB.
pub const BYTES: u64 = (SIZE * SIZE * 4) as u64;

/// One large layer.
#[derive(Pipeline)]
#[pipeline(init = Probe::new)]
pub struct Probe {
    layer: Linear,
}

/// What a worker sees of itself and of its weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    pub pid: u32,
    pub cores: BTreeSet<u32>,
    /// The memfd that the weights are in.
    pub inode: u64,
    /// Where the pages of the weights are.
    pub pages: BTreeMap<u32, u64>,
    /// Number of arenas that the process has mapped.
    pub arenas: usize,
}

fn address_of(layer: &Linear) -> usize {
    match layer.weight.val().into_dispatch().kind {
        DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.bytes().as_ptr() as usize,
        other => panic!("not a float tensor on flex: {other:?}"),
    }
}

#[ray_zerocopy::remote]
impl Probe {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(SIZE, SIZE).with_bias(false).init(device) }
    }

    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        self.layer.forward(input)
    }

    pub fn seen(&self) -> Seen {
        // Every page is in the page table then.
        assert!(self.layer.weight.val().sum().into_scalar::<f32>().is_finite());
        let (start, inode) = mapping_of(address_of(&self.layer));
        // Of all threads that the worker computes with.
        let cores = rayon::broadcast(|_| cores("thread-self")).into_iter().flatten().collect();
        let pid = std::process::id();
        Seen { pid, cores, inode, pages: pages(&start), arenas: mapped_arenas().len() }
    }
}

/// A model, an input, and the output for it.
pub fn probe() -> (Probe, Tensor<2>, TensorData) {
    let model = Probe::new(&Device::flex());
    let input = Tensor::<2>::ones([2, SIZE], &Device::flex());
    let expected = model.forward(input.clone()).into_data();
    (model, input, expected)
}

/// A large part that variants share, and a small one.
#[derive(Pipeline)]
#[pipeline(init = Pair::new)]
pub struct Pair {
    body: Linear,
    head: Linear,
}

#[ray_zerocopy::remote]
impl Pair {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { body: LinearConfig::new(512, 512).init(device), head: LinearConfig::new(8, 8).init(device) }
    }

    /// Gives it another head.
    #[remote(skip)]
    pub fn tuned(self) -> Self {
        Self { head: LinearConfig::new(8, 8).init(&Device::flex()), ..self }
    }

    /// The memfds of the body and of the head.
    pub fn inodes(&self) -> [u64; 2] {
        [&self.body, &self.head].map(|layer| mapping_of(address_of(layer)).1)
    }
}
