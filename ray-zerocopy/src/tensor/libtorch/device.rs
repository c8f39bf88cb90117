//! Tensors of burn's LibTorch backend that read memory of others.

#![allow(deprecated, reason = "burn marks LibTorch as on its way out; users who name it ask for it")]

use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn::tensor::kind::Basic;
use burn::tensor::{BoolStore, DType, Device, Tensor, TensorData};
use burn_tch::TchTensor;

use super::sys;
use crate::tensor::kind::TensorKind;

/// Whether a device reads these elements where they are.
pub(crate) fn borrows(data: &TensorData, device: &Device) -> bool {
    let dtype = data.dtype();
    // burn's LibTorch takes integers of 64 bits alone, whatever LibTorch has.
    let known = [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::Bool(BoolStore::Native)];
    let aligned = (data.as_bytes().as_ptr() as usize).is_multiple_of(dtype.size().max(1));
    *device == Device::libtorch() && known.contains(&dtype) && aligned
}

/// A tensor of LibTorch's CPU over the bytes of `data`, which stay where they are. Asks [`borrows`] first.
///
/// # Errors
/// What LibTorch says.
pub(crate) fn borrowed<const D: usize, K: Basic>(data: TensorData) -> Result<Tensor<D, K>, String> {
    let (bytes, shape, dtype) = data.into_parts();
    let tensor = sys::lent(bytes, &shape.to_vec(), dtype)?;
    let tensor = match TensorKind::of(dtype) {
        TensorKind::Float => BackendTensor::Float(tensor),
        TensorKind::Int => BackendTensor::Int(tensor),
        TensorKind::Bool => BackendTensor::Bool(tensor),
    };
    let kind = DispatchTensorKind::LibTorch(tensor);
    Ok(Tensor::from_dispatch(DispatchTensor { kind, autodiff: Default::default() }))
}

/// The address of the elements that a tensor reads, if they are in host memory.
pub(crate) fn address<const D: usize, K: Basic>(tensor: &Tensor<D, K>) -> Option<*const u8> {
    let DispatchTensorKind::LibTorch(tensor) = tensor.clone().into_dispatch().kind else { return None };
    let tensor: &TchTensor = match &tensor {
        BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor) => tensor,
        #[allow(unreachable_patterns, reason = "burn's feature `autodiff` adds a variant")]
        _ => return None,
    };
    (tensor.tensor.device() == tch::Device::Cpu).then(|| tensor.tensor.data_ptr().cast_const().cast())
}

/// Where a device computes, if LibTorch can: on the CPU, or on the GPU of this number. Host memory is the CPU's.
#[cfg(feature = "torchscript")]
pub(crate) fn gpu(device: &Device) -> Option<Option<usize>> {
    if *device == Device::flex() || *device == Device::libtorch() {
        return Some(None);
    }
    let gpus = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    (0..gpus).find(|&gpu| *device == Device::libtorch_cuda(gpu)).map(Some)
}
