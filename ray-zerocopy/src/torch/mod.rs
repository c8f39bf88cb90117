//! LibTorch: tensors that borrow, and TorchScript modules.
//!
//! Knows tensors and bytes; nothing of pipelines, arenas or graphs.
//!
//! | file | what |
//! | --- | --- |
//! | `sys` | what burn's bindings of LibTorch lack, as a small shim in C++, and its safe side. The unsafe code of this folder |
//! | `device` | tensors of burn's LibTorch backend on memory of others |

mod device;
mod sys;

#[cfg(feature = "torchscript")]
pub(crate) use device::gpu;
pub(crate) use device::{address, borrowed, borrows};
#[cfg(all(feature = "torchscript", feature = "ray"))]
pub(crate) use sys::version;
#[cfg(feature = "torchscript")]
pub(crate) use sys::{Description, Held, Module, Role, Tensor};
