//! Declarations of the functions in `shim/shim.cpp`. Functions that can fail return a message.

use std::ffi::{CStr, c_char, c_int, c_void};

/// A C++ object behind a pointer. Tensors are `torch::Tensor`, as in `tch`.
#[repr(C)]
pub(crate) struct Opaque {
    _private: [u8; 0],
}

/// Result of a shim function: null, or an error message. Only the shim creates one.
#[repr(transparent)]
#[must_use]
pub(super) struct Message(*mut c_char);

impl Message {
    /// Converts a message into an error.
    pub(super) fn check(self) -> Result<(), String> {
        if self.0.is_null() {
            return Ok(());
        }
        // SAFETY: the shim gives null or a zero-terminated string of its own, which stays valid
        // until `rz_free`.
        let text = unsafe { CStr::from_ptr(self.0) }.to_string_lossy().into_owned();
        // SAFETY: `self` was the only pointer to the string, and is consumed by this call.
        unsafe { rz_free(self) };
        Err(text)
    }
}

#[repr(C)]
pub(super) struct Description {
    pub kind: c_int,
    pub rank: usize,
    pub dims: *const i64,
    pub storage: *const c_void,
    pub data: *const c_void,
    pub len: usize,
}

unsafe extern "C" {
    pub(super) fn rz_free(message: Message);
    pub(super) fn rz_blob(
        data: *const c_void,
        cuda: c_int,
        dims: *const i64,
        rank: usize,
        kind: c_int,
        owner: *mut c_void,
        release: unsafe extern "C" fn(*mut c_void),
        tensor: *mut *mut Opaque,
    ) -> Message;
    pub(super) fn rz_tensor_free(tensor: *mut Opaque);
}

/// Functions for TorchScript.
#[cfg(feature = "torchscript")]
mod script {
    use super::Description;
    use super::{Message, Opaque, c_char, c_int, c_void};

    unsafe extern "C" {
        #[cfg(feature = "ray")]
        pub(in crate::tensor::libtorch) fn rz_version() -> *const c_char;
        pub(in crate::tensor::libtorch) fn rz_describe(tensor: *const Opaque, made: *mut Description) -> Message;
        pub(in crate::tensor::libtorch) fn rz_ordered(tensor: *const Opaque, made: *mut *mut Opaque) -> Message;
        pub(in crate::tensor::libtorch) fn rz_emptied(tensor: *const Opaque, made: *mut *mut Opaque) -> Message;
        pub(in crate::tensor::libtorch) fn rz_load(
            bytes: *const c_char,
            len: usize,
            module: *mut *mut Opaque,
        ) -> Message;
        pub(in crate::tensor::libtorch) fn rz_open(path: *const c_char, module: *mut *mut Opaque) -> Message;
        pub(in crate::tensor::libtorch) fn rz_save(
            module: *const Opaque,
            context: *mut c_void,
            callback: unsafe extern "C" fn(*mut c_void, *const c_char, usize),
        ) -> Message;
        pub(in crate::tensor::libtorch) fn rz_module_free(module: *mut Opaque);
        pub(in crate::tensor::libtorch) fn rz_tensors(
            module: *const Opaque,
            context: *mut c_void,
            callback: unsafe extern "C" fn(*mut c_void, *const c_char, c_int, *mut Opaque),
        ) -> Message;
        pub(in crate::tensor::libtorch) fn rz_methods(
            module: *const Opaque,
            context: *mut c_void,
            callback: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, *const c_char, bool),
        ) -> Message;
        pub(in crate::tensor::libtorch) fn rz_constants(module: *const Opaque, len: *mut usize) -> Message;
        pub(in crate::tensor::libtorch) fn rz_writes(
            module: *const Opaque,
            context: *mut c_void,
            callback: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char),
        ) -> Message;
        pub(in crate::tensor::libtorch) fn rz_replace(
            module: *const Opaque,
            context: *mut c_void,
            find: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut Opaque,
        ) -> Message;
        pub(in crate::tensor::libtorch) fn rz_upload(module: *mut Opaque, cuda: c_int) -> Message;
        pub(in crate::tensor::libtorch) fn rz_call(
            module: *const Opaque,
            method: *const c_char,
            names: *const *const c_char,
            tensors: *const *mut Opaque,
            count: usize,
            cuda: c_int,
            context: *mut c_void,
            callback: unsafe extern "C" fn(*mut c_void, *const c_char, *mut Opaque),
        ) -> Message;
    }
}

#[cfg(feature = "torchscript")]
pub(super) use script::*;
