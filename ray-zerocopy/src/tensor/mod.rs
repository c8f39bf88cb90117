//! Tensors as data. Depends on burn and devices, but not on arenas, pipelines or engines.
//!
//! | file | what |
//! | --- | --- |
//! | `align` | alignment of tensor data |
//! | `dtype` | validation of dtype, shape and length |
//! | `kind` | float, int and bool tensors |
//! | `host` | tensors as bytes in host memory, and back |
//! | `convert` | element types that a device does not support |
//! | `quantised` | burn's quantised tensors, as floats |
//! | `source` | where the arena builder reads the bytes of a tensor |
//! | `value` | named tensors of any rank and kind |
//! | `copied` | tensors that were copied instead of borrowed |
//! | `cube/` | recordings of kernels, on burn's CUDA and wgpu backends |
//! | `libtorch/` | tensors over borrowed memory in LibTorch, and TorchScript modules |

pub(crate) mod align;
pub(crate) mod convert;
pub(crate) mod copied;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub(crate) mod cube;
pub(crate) mod dtype;
pub(crate) mod host;
pub(crate) mod kind;
#[cfg(feature = "libtorch")]
pub(crate) mod libtorch;
pub(crate) mod quantised;
pub(crate) mod source;
pub(crate) mod value;
