//! LibTorch: tensors over borrowed memory, and TorchScript modules.
//!
//! Depends on tensors and bytes, but not on pipelines, arenas or graphs.
//!
//! | file | what |
//! | --- | --- |
//! | `sys` | a small C++ shim for what burn's LibTorch bindings lack, and its safe wrapper. The unsafe code of this folder |
//! | `device` | tensors of burn's LibTorch backend over borrowed memory |

pub(crate) mod device;
pub(crate) mod sys;

#[cfg(feature = "torchscript")]
pub(crate) use self::device::gpu;
#[cfg(target_os = "linux")]
pub(crate) use self::device::{gpu_address, on_gpu};
#[cfg(target_os = "linux")]
pub(crate) use self::sys::tensor::GpuMemory;
