//! Page-locked memory and streams, for uploads from memory that is not page-locked.

use std::ffi::c_void;

use super::api::{DriverError, Object, call};
use super::context::Gpu;
use super::memory::Mapping;

/// Page-locked buffers, each with the stream that copies from it: one is filled while the other is copied
/// from. For one thread at a time.
pub(crate) struct Staging {
    buffers: [Buffer; 2],
    /// The buffer that is filled next.
    next: usize,
}

struct Buffer {
    gpu: Gpu,
    address: *mut c_void,
    len: usize,
    stream: Object,
}

// SAFETY: the memory and the stream are this value's own, and a stream may be used by any thread.
unsafe impl Send for Buffer {}

impl Staging {
    /// Allocates two buffers of `len` bytes.
    pub(crate) fn new(gpu: Gpu, len: usize) -> Result<Self, DriverError> {
        Ok(Self { buffers: [Buffer::new(gpu, len)?, Buffer::new(gpu, len)?], next: 0 })
    }

    /// Starts an upload from the buffer that was not used last, after the upload from it before: `bytes` go
    /// to `offset` in the mapping.
    ///
    /// # Panics
    /// If there are more bytes than a buffer has, or they do not fit the mapping.
    pub(crate) fn upload(&mut self, target: &Mapping, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        let buffer = &mut self.buffers[self.next];
        self.next = 1 - self.next;
        buffer.upload(target, offset, bytes)
    }

    /// Waits for all uploads.
    pub(crate) fn wait(&self) -> Result<(), DriverError> {
        self.buffers.iter().try_for_each(Buffer::wait)
    }
}

impl Buffer {
    fn new(gpu: Gpu, len: usize) -> Result<Self, DriverError> {
        gpu.enter()?;
        let mut buffer = Self { gpu, address: std::ptr::null_mut(), len, stream: std::ptr::null_mut() };
        // SAFETY: the driver writes the address of `len` bytes of host memory.
        unsafe { call!(gpu.api, cuMemAllocHost_v2(&raw mut buffer.address, len)) }?;
        // SAFETY: the driver writes a stream. 1 is `CU_STREAM_NON_BLOCKING`.
        unsafe { call!(gpu.api, cuStreamCreate(&raw mut buffer.stream, 1)) }?;
        Ok(buffer)
    }

    fn upload(&mut self, target: &Mapping, offset: usize, bytes: &[u8]) -> Result<(), DriverError> {
        assert!(bytes.len() <= self.len && offset + bytes.len() <= target.len(), "the bytes do not fit");
        self.wait()?;
        // SAFETY: the buffer has at least this length, nothing on the GPU reads it any more, and
        // `bytes` is other memory.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.cast(), bytes.len()) };
        let (address, len) = (target.address() + offset as u64, bytes.len());
        // SAFETY: the buffer lives until `drop`, which waits for the stream. The range is inside of
        // the mapping.
        unsafe { call!(self.gpu.api, cuMemcpyHtoDAsync_v2(address, self.address, len, self.stream)) }
    }

    fn wait(&self) -> Result<(), DriverError> {
        self.gpu.enter()?;
        // SAFETY: the stream is this value's own.
        unsafe { call!(self.gpu.api, cuStreamSynchronize(self.stream)) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // An upload that fails here has failed in `wait`, which callers check.
        let _ = self.wait();
        if !self.stream.is_null() {
            // SAFETY: the stream is this value's own, and is not used again.
            let _ = unsafe { call!(self.gpu.api, cuStreamDestroy_v2(self.stream)) };
        }
        if !self.address.is_null() {
            // SAFETY: the buffer is this value's own, and nothing reads it any more.
            let _ = unsafe { call!(self.gpu.api, cuMemFreeHost(self.address)) };
        }
    }
}
