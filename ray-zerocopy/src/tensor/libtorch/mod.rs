//! LibTorch: tensors that borrow, and TorchScript modules.
//!
//! Knows tensors and bytes; nothing of pipelines, arenas or graphs.
//!
//! | file | what |
//! | --- | --- |
//! | `sys` | what burn's bindings of LibTorch lack, as a small shim in C++, and its safe side. The unsafe code of this folder |
//! | `device` | tensors of burn's LibTorch backend on memory of others |

pub(crate) mod device;
pub(crate) mod sys;

#[cfg(feature = "torchscript")]
pub(crate) use self::device::gpu;
pub(crate) use self::device::{address, borrowed, borrows};
#[cfg(all(feature = "torchscript", feature = "ray"))]
pub(crate) use self::sys::module::version;
#[cfg(feature = "torchscript")]
pub(crate) use self::sys::module::{Held, Module, Role};
#[cfg(feature = "torchscript")]
pub(crate) use self::sys::tensor::Tensor;
#[cfg(feature = "torchscript")]
pub(crate) use elements::Description;
