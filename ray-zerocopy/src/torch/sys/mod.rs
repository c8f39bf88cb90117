//! What burn's bindings of LibTorch lack, by a shim in C++. The only unsafe code that has to do with LibTorch.
//!
//! | file | what |
//! | --- | --- |
//! | `shim.cpp` | the functions, which let no C++ exception out |
//! | `ffi` | their declarations |
//! | `tensor` | tensors on memory of others, and the elements of tensors |
//! | `module` | TorchScript modules |

#![allow(unsafe_code)]

mod ffi;
#[cfg(feature = "torchscript")]
mod module;
mod tensor;

use std::ffi::CStr;

#[cfg(feature = "torchscript")]
pub(crate) use module::{Held, Module, Role};
pub(super) use tensor::lent;
#[cfg(feature = "torchscript")]
pub(crate) use tensor::{Description, Tensor};

/// What a function of the shim says: nothing, or what is wrong.
///
/// # Safety
/// `message` was returned by a function of the shim and is not used again.
unsafe fn check(message: ffi::Message) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim returns null or a string of its own that ends with a zero, which stays until `rz_free`.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: by the promise of the caller, nobody uses it after this.
    unsafe { ffi::rz_free(message) };
    Err(text)
}
