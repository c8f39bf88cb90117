//! Memory of a GPU that processes pass to each other as a file descriptor, and its mappings.
//!
//! The memory exists as long as a process has a descriptor or a mapping of it, as that of a memfd
//! does: also after the process that allocated it has ended.

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::api::{AccessDescription, Address, AllocationProperties, DriverError, Handle, call};
use super::context::Gpu;
use crate::os::recording;

/// The type of handle that is a POSIX file descriptor.
const DESCRIPTOR: i32 = 1;

/// Allocated memory, without an address.
pub(crate) struct Memory {
    gpu: Gpu,
    handle: Handle,
    len: usize,
}

/// How a process may use a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

impl Memory {
    fn properties(gpu: &Gpu) -> AllocationProperties {
        AllocationProperties {
            kind: 1,
            handles: DESCRIPTOR,
            location: gpu.location(),
            windows: std::ptr::null_mut(),
            flags: [0; 8],
        }
    }

    /// Rounds a size up to whole units of allocation.
    pub(crate) fn rounded(gpu: &Gpu, len: usize) -> Result<usize, DriverError> {
        let mut unit = 0;
        let properties = Self::properties(gpu);
        // SAFETY: the driver writes a number to `unit`, and reads the properties.
        unsafe { call!(gpu.api, cuMemGetAllocationGranularity(&raw mut unit, &raw const properties, 0)) }?;
        Ok(len.max(1).next_multiple_of(unit.max(1)))
    }

    /// Allocates memory. `len` is a [rounded](Self::rounded) size.
    pub(crate) fn create(gpu: Gpu, len: usize) -> Result<Self, DriverError> {
        gpu.enter()?;
        let mut handle = 0;
        let properties = Self::properties(&gpu);
        // SAFETY: the driver writes a handle, and reads the properties.
        unsafe { call!(gpu.api, cuMemCreate(&raw mut handle, len, &raw const properties, 0)) }?;
        Ok(Self { gpu, handle, len })
    }

    /// Opens the memory behind a descriptor of another process, which is `len` bytes long.
    pub(crate) fn import(gpu: Gpu, descriptor: impl AsFd, len: usize) -> Result<Self, DriverError> {
        gpu.enter()?;
        let mut handle = 0;
        let number = descriptor.as_fd().as_raw_fd() as isize as *mut c_void;
        // SAFETY: the driver writes a handle. For this type of handle, the pointer is the number of
        // a descriptor, which is open during the call.
        unsafe { call!(gpu.api, cuMemImportFromShareableHandle(&raw mut handle, number, DESCRIPTOR)) }?;
        Ok(Self { gpu, handle, len })
    }

    /// Returns a descriptor of the memory, which keeps it. The driver makes one only in the process that
    /// has allocated the memory: others pass on the descriptor that they have.
    pub(crate) fn export(&self) -> Result<OwnedFd, DriverError> {
        let mut number: i32 = -1;
        let out = (&raw mut number).cast();
        // SAFETY: for this type of handle, the driver writes the number of a new descriptor.
        unsafe { call!(self.gpu.api, cuMemExportToShareableHandle(out, self.handle, DESCRIPTOR, 0)) }?;
        // SAFETY: the descriptor is new, so nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Maps the whole memory.
    pub(crate) fn map(&self, access: Access) -> Result<Mapping, DriverError> {
        let (gpu, len) = (self.gpu, self.len);
        gpu.enter()?;
        let mut address = 0;
        // SAFETY: the driver writes an address that nothing else in this process uses.
        unsafe { call!(gpu.api, cuMemAddressReserve(&raw mut address, len, 0, 0, 0)) }?;
        // From here, dropping it frees the addresses.
        let mut mapping = Mapping { gpu, address, len, is_mapped: false };
        // SAFETY: the addresses are reserved and free, and the memory has this length.
        unsafe { call!(gpu.api, cuMemMap(address, len, 0, self.handle, 0)) }?;
        mapping.is_mapped = true;
        mapping.protect(access)?;
        Ok(mapping)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the handle is this value's own. Mappings keep the memory.
        let released = unsafe { call!(self.gpu.api, cuMemRelease(self.handle)) };
        // Nothing can be done here, and the driver frees it when the process ends.
        let _ = released;
    }
}

/// Memory of a GPU at an address of this process.
pub(crate) struct Mapping {
    gpu: Gpu,
    address: Address,
    len: usize,
    is_mapped: bool,
}

impl Mapping {
    pub(crate) fn address(&self) -> Address {
        self.address
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Changes what kernels and copies of this process may do. A kernel that writes to a read-only
    /// mapping is an error of its process, and changes nothing.
    pub(crate) fn protect(&mut self, access: Access) -> Result<(), DriverError> {
        let flags = match access {
            Access::Read => 1,
            Access::ReadWrite => 3,
        };
        let access = AccessDescription { location: self.gpu.location(), flags };
        // SAFETY: the range is this mapping's own. The driver reads one description.
        unsafe { call!(self.gpu.api, cuMemSetAccess(self.address, self.len, &raw const access, 1)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A kernel may still read it. If the context has failed, none does.
        let finished = recording::apart(|| self.gpu.synchronize());
        if finished.is_err_and(|error| !error.ends_the_context()) {
            // The driver frees it when the process ends.
            return;
        }
        if self.is_mapped {
            // SAFETY: the range is mapped, and no work on the GPU uses it any more.
            let _ = unsafe { call!(self.gpu.api, cuMemUnmap(self.address, self.len)) };
        }
        // SAFETY: the range is reserved, and nothing is mapped there.
        let _ = unsafe { call!(self.gpu.api, cuMemAddressFree(self.address, self.len)) };
    }
}

/// A part of a mapping, which exists as long as this value.
#[derive(Clone)]
pub(crate) struct MappedRange {
    mapping: Arc<Mapping>,
    offset: usize,
    len: usize,
}

impl MappedRange {
    /// The range of `len` bytes at an offset. `None` if the mapping has fewer.
    pub(crate) fn of(mapping: &Arc<Mapping>, offset: usize, len: usize) -> Option<Self> {
        let is_inside = offset.checked_add(len).is_some_and(|end| end <= mapping.len());
        is_inside.then(|| Self { mapping: Arc::clone(mapping), offset, len })
    }

    /// The address on the GPU. Kernels and copies may read it, and not write to it.
    pub(crate) fn address(&self) -> Address {
        self.mapping.address() + self.offset as u64
    }

    /// The size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

// SAFETY: the range is inside of the mapping, which this value keeps.
#[cfg(feature = "libtorch")]
unsafe impl crate::tensor::libtorch::GpuMemory for MappedRange {
    fn address(&self) -> u64 {
        Self::address(self)
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn gpu(&self) -> usize {
        self.mapping.gpu.index
    }
}
