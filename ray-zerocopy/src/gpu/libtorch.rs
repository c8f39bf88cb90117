//! Tensors of burn's LibTorch backend that read a copy.
//!
//! LibTorch takes addresses, and uses the primary context of the GPU, as this folder does.

#![allow(deprecated, reason = "burn marks LibTorch as on its way out; users who name it ask for it")]

use ::burn::backend::{DispatchDevice, DispatchTensorKind};
use ::burn::tensor::kind::Basic;
use ::burn::tensor::{DType, Device, Tensor};
use burn_tch::LibTorchDevice;

use super::copy::DeviceCopy;
use crate::tensor::libtorch;

/// The number of the GPU that a device of LibTorch is, or `None` if it is another device.
pub(super) fn number(device: &Device) -> Option<usize> {
    match device.as_dispatch() {
        DispatchDevice::LibTorch(LibTorchDevice::Cuda(index)) => Some(*index),
        _ => None,
    }
}

impl DeviceCopy {
    /// A tensor of burn's LibTorch backend that reads the copy. `None` if the blob is not in it with
    /// elements of this type, or has another size, or LibTorch refuses the memory.
    pub(crate) fn libtorch_tensor(&self, blob: u32, shape: &[usize], dtype: DType) -> Option<DispatchTensorKind> {
        self.place(blob, shape, dtype)?;
        libtorch::on_gpu(self.range(blob, dtype)?, shape, dtype).ok()
    }

    /// Whether a tensor of burn's LibTorch backend reads the copy.
    pub(crate) fn libtorch_has<const D: usize, K: Basic>(&self, tensor: &Tensor<D, K>) -> bool {
        let Some(whole) = self.home.range(0, self.bytes() as usize) else { return false };
        let inside = whole.address()..whole.address() + whole.len() as u64;
        libtorch::gpu_address(tensor).is_some_and(|address| inside.contains(&address))
    }
}
