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

pub(crate) mod ffi;
#[cfg(feature = "torchscript")]
pub(crate) mod module;
pub(crate) mod tensor;

#[cfg(all(feature = "torchscript", feature = "ray"))]
pub(crate) use self::module::version;
#[cfg(feature = "torchscript")]
pub(crate) use self::module::{Held, Module, Role};
#[cfg(feature = "torchscript")]
pub(crate) use self::tensor::Tensor;
pub(super) use self::tensor::lent;
#[cfg(feature = "torchscript")]
pub(crate) use elements::Description;
