//! Page-locked memory and a stream, for uploads from memory that is not page-locked.

use std::ffi::c_void;

use super::api::{DriverError, Object, call};
use super::context::Gpu;
use super::memory::Mapping;

/// A page-locked buffer, and the stream that copies from it. For one thread at a time.
pub(crate) struct Staging {
    gpu: Gpu,
    buffer: *mut c_void,
    len: usize,
    stream: Object,
}

// SAFETY: the buffer and the stream are this value's own, and a stream may be used by any thread.
unsafe impl Send for Staging {}

impl Staging {
    /// Allocates `len` bytes.
    pub(crate) fn new(gpu: Gpu, len: usize) -> Result<Self, DriverError> {
        gpu.enter()?;
        let mut staging = Self { gpu, buffer: std::ptr::null_mut(), len, stream: std::ptr::null_mut() };
        // SAFETY: the driver writes the address of `len` bytes of host memory.
        unsafe { call!(gpu.api, cuMemAllocHost_v2(&raw mut staging.buffer, len)) }?;
        // SAFETY: the driver writes a stream. 1 is `CU_STREAM_NON_BLOCKING`.
        unsafe { call!(gpu.api, cuStreamCreate(&raw mut staging.stream, 1)) }?;
        Ok(staging)
    }

    /// Waits for the last upload from this buffer, and starts the next one: `bytes` go to `offset`
    /// in the mapping.
    ///
    /// # Panics
    /// If there are more bytes than the buffer has, or they do not fit the mapping.
    pub(crate) fn upload(&mut self, target: &Mapping, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        assert!(bytes.len() <= self.len && offset + bytes.len() <= target.len(), "the bytes do not fit");
        self.wait()?;
        // SAFETY: the buffer has at least this length, nothing on the GPU reads it any more, and
        // `bytes` is other memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.buffer.cast(), bytes.len()) };
        let (address, len) = (target.address() + offset as u64, bytes.len());
        // SAFETY: the buffer lives until `drop`, which waits for the stream. The range is inside of
        // the mapping.
        unsafe { call!(self.gpu.api, cuMemcpyHtoDAsync_v2(address, self.buffer, len, self.stream)) }
    }

    /// Waits for the last upload.
    pub(crate) fn wait(&self) -> Result<(), DriverError> {
        self.gpu.enter()?;
        // SAFETY: the stream is this value's own.
        unsafe { call!(self.gpu.api, cuStreamSynchronize(self.stream)) }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // An upload that fails here has failed in `wait`, which callers check.
        let _ = self.wait();
        if !self.stream.is_null() {
            // SAFETY: the stream is this value's own, and is not used again.
            let _ = unsafe { call!(self.gpu.api, cuStreamDestroy_v2(self.stream)) };
        }
        if !self.buffer.is_null() {
            // SAFETY: the buffer is this value's own, and nothing reads it any more.
            let _ = unsafe { call!(self.gpu.api, cuMemFreeHost(self.buffer)) };
        }
    }
}
