//! What burn's bindings of LibTorch lack, by a shim in C++. The only unsafe code that has to do with LibTorch.
//!
//! | file | what |
//! | --- | --- |
//! | `shim/shim.cpp` | the functions, which let no C++ exception out |
//! | `shim/values.h` | the tensors of modules, arguments and answers, by name |
//! | `shim/writes.h` | which method writes what |
//! | `ffi` | their declarations |
//! | `tensor` | tensors on memory of others, and the elements of tensors |
//! | `module` | TorchScript modules |

#![allow(unsafe_code)]

mod ffi;
#[cfg(feature = "torchscript")]
mod module;
mod tensor;

#[cfg(all(feature = "torchscript", feature = "ray"))]
pub(crate) use module::version;
#[cfg(feature = "torchscript")]
pub(crate) use module::{Held, Module, Role};
pub(super) use tensor::lent;
#[cfg(feature = "torchscript")]
pub(crate) use tensor::{Description, Tensor};
