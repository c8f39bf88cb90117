//! Tensors of burn's LibTorch backend over borrowed memory.

#![allow(deprecated, reason = "burn marks LibTorch as on its way out; users who name it ask for it")]

use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind};
use burn::tensor::kind::Basic;
use burn::tensor::{BoolStore, DType, Device, Tensor, TensorData};
use burn_tch::TchTensor;

use super::sys;
use crate::tensor::kind::TensorKind;

/// Returns `true` if the device reads these elements in place.
pub(crate) fn borrows(data: &TensorData, device: &Device) -> bool {
    let dtype = data.dtype();
    // burn's LibTorch backend only accepts 64-bit integers, although LibTorch has others.
    let known = [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::Bool(BoolStore::Native)];
    let aligned = (data.as_bytes().as_ptr() as usize).is_multiple_of(dtype.size().max(1));
    *device == Device::libtorch() && known.contains(&dtype) && aligned
}

/// Creates a tensor on LibTorch's CPU device over the bytes of `data`, without a copy. Callers
/// check [`borrows`] first.
///
/// # Errors
/// The message of LibTorch.
pub(crate) fn borrowed<const D: usize, K: Basic>(data: TensorData) -> Result<Tensor<D, K>, String> {
    let (bytes, shape, dtype) = data.into_parts();
    let kind = kind(sys::borrowed_tensor(bytes, &shape.to_vec(), dtype)?, dtype);
    Ok(Tensor::from_dispatch(DispatchTensor { kind, autodiff: Default::default() }))
}

fn kind(tensor: TchTensor, dtype: DType) -> DispatchTensorKind {
    DispatchTensorKind::LibTorch(match TensorKind::of(dtype) {
        TensorKind::Float => BackendTensor::Float(tensor),
        TensorKind::Int => BackendTensor::Int(tensor),
        TensorKind::Bool => BackendTensor::Bool(tensor),
    })
}

/// Creates a tensor over memory of a GPU, without a copy.
///
/// # Errors
/// The message of LibTorch.
#[cfg(target_os = "linux")]
pub(crate) fn on_gpu(
    memory: impl sys::tensor::GpuMemory + 'static,
    shape: &[usize],
    dtype: DType,
) -> Result<DispatchTensorKind, String> {
    Ok(kind(sys::tensor::gpu_tensor(memory, shape, dtype)?, dtype))
}

fn tch<const D: usize, K: Basic>(tensor: &Tensor<D, K>) -> Option<TchTensor> {
    let DispatchTensorKind::LibTorch(tensor) = tensor.clone().into_dispatch().kind else { return None };
    match tensor {
        BackendTensor::Float(tensor) | BackendTensor::Int(tensor) | BackendTensor::Bool(tensor) => Some(tensor),
        #[allow(unreachable_patterns, reason = "burn's feature `autodiff` adds a variant")]
        _ => None,
    }
}

/// Returns the address of a tensor's elements, or `None` if they are not in host memory.
pub(crate) fn address<const D: usize, K: Basic>(tensor: &Tensor<D, K>) -> Option<*const u8> {
    let tensor = tch(tensor)?.tensor;
    (tensor.device() == tch::Device::Cpu).then(|| tensor.data_ptr().cast_const().cast())
}

/// Returns the address of a tensor's elements in the memory of a GPU, or `None` if they are elsewhere.
#[cfg(target_os = "linux")]
pub(crate) fn gpu_address<const D: usize, K: Basic>(tensor: &Tensor<D, K>) -> Option<u64> {
    let tensor = tch(tensor)?.tensor;
    matches!(tensor.device(), tch::Device::Cuda(_)).then(|| tensor.data_ptr() as u64)
}

/// Returns where LibTorch runs the computations of a device: `Some(None)` on the CPU,
/// `Some(Some(n))` on GPU `n`. Returns `None` if LibTorch does not support the device. Host memory
/// belongs to the CPU.
#[cfg(feature = "torchscript")]
pub(crate) fn gpu(device: &Device) -> Option<Option<usize>> {
    if *device == Device::flex() || *device == Device::libtorch() {
        return Some(None);
    }
    let gpus = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    (0..gpus).find(|&gpu| *device == Device::libtorch_cuda(gpu)).map(Some)
}
