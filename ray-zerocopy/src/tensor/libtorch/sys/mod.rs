//! A C++ shim for what burn's LibTorch bindings lack. The only unsafe code that deals with
//! LibTorch.
//!
//! | file | what |
//! | --- | --- |
//! | `shim/shim.cpp` | the functions, which catch all C++ exceptions |
//! | `shim/values.h` | tensors of modules, arguments and results, by name |
//! | `shim/writes.h` | which method writes to which tensor |
//! | `ffi` | declarations of the functions |
//! | `tensor` | tensors over borrowed memory, and access to the elements of tensors |
//! | `module` | TorchScript modules |

#![allow(unsafe_code)]

pub(crate) mod ffi;
#[cfg(feature = "torchscript")]
pub(crate) mod module;
pub(crate) mod tensor;

pub(super) use self::tensor::borrowed_tensor;
