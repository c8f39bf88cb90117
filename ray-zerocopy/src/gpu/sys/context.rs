//! A GPU, and its primary context in this process: the one that burn and LibTorch use.

use std::ffi::c_int;

use super::api::{Api, DriverError, Location, Object, api, call};

/// A GPU whose primary context this process has. It keeps the context until it ends, as burn does.
#[derive(Clone, Copy)]
pub(crate) struct Gpu {
    pub(super) api: &'static Api,
    context: Object,
    device: c_int,
    /// The number that it was opened by.
    pub(crate) index: usize,
    /// Identifies the GPU, whatever number it has in a process.
    pub(crate) uuid: [u8; 16],
}

/// The name of a GPU in NVIDIA's tools: `GPU-` and the 32 hexadecimal digits of its UUID, in five groups.
pub(crate) fn gpu_name(uuid: &[u8; 16]) -> String {
    let digits: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

/// Identifies a GPU, which need not have a context in this process. `None` if there is no such GPU.
#[cfg(any(feature = "cuda", feature = "libtorch"))]
pub(crate) fn uuid(index: usize) -> Option<[u8; 16]> {
    let api = api().ok()?;
    let (mut device, mut uuid, number) = (0, [0; 16], c_int::try_from(index).ok()?);
    // SAFETY: the driver writes a number to `device`.
    unsafe { call!(api, cuDeviceGet(&raw mut device, number)) }.ok()?;
    // SAFETY: the driver writes 16 bytes to `uuid`.
    unsafe { call!(api, cuDeviceGetUuid_v2(&raw mut uuid, device)) }.ok()?;
    Some(uuid)
}

// SAFETY: a context may be used by all threads of the process that created it, and is never
// destroyed.
unsafe impl Send for Gpu {}
// SAFETY: as above. The driver's functions may be called by several threads at once.
unsafe impl Sync for Gpu {}

/// `CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED`, and
/// `CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED`.
const SHARES_MEMORY: [c_int; 2] = [102, 103];

/// What the driver does not say of a GPU that another process has for itself.
const EXCLUSIVE: &str = ": another process has the GPU, and its compute mode allows one at a time (`nvidia-smi -c 0` allows \
                         several, and so does MPS)";

impl Gpu {
    /// The number of GPUs that the driver lists for this process.
    ///
    /// # Errors
    /// Says why there are none, as the rest of "found …".
    pub(crate) fn count() -> Result<usize, String> {
        let api = api()?;
        let mut count = 0;
        // SAFETY: the driver writes a number to `count`.
        unsafe { call!(api, cuDeviceGetCount(&raw mut count)) }.map_err(|error| format!("no CUDA device: {error}"))?;
        match usize::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err("no CUDA device: the driver lists none".to_owned()),
        }
    }

    /// Opens the GPU of this number, and makes its context that of this thread.
    ///
    /// # Errors
    /// If there is no such GPU, or no context can be created.
    pub(crate) fn open(index: usize) -> Result<Self, String> {
        let api = api()?;
        let number = c_int::try_from(index).map_err(|_| format!("no GPU {index}"))?;
        let open = || {
            let (mut device, mut uuid, mut context) = (0, [0; 16], std::ptr::null_mut());
            // SAFETY: the driver writes a number to `device`.
            unsafe { call!(api, cuDeviceGet(&raw mut device, number)) }?;
            // SAFETY: the driver writes 16 bytes to `uuid`.
            unsafe { call!(api, cuDeviceGetUuid_v2(&raw mut uuid, device)) }?;
            // SAFETY: the driver writes a pointer to `context`.
            unsafe { call!(api, cuDevicePrimaryCtxRetain(&raw mut context, device)) }?;
            let gpu = Self { api, context, device, index, uuid };
            gpu.enter()?;
            Ok(gpu)
        };
        open().map_err(|error: DriverError| {
            let hint = if error.is_exclusive() { EXCLUSIVE } else { "" };
            format!("{error}{hint}")
        })
    }

    /// Makes the GPU's context that of the calling thread, for the functions that use the current
    /// one.
    pub(crate) fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained, and never released.
        unsafe { call!(self.api, cuCtxSetCurrent(self.context)) }
    }

    /// Whether the GPU has memory that other processes can map.
    pub(crate) fn shares_memory(&self) -> Result<bool, DriverError> {
        let mut all = true;
        for attribute in SHARES_MEMORY {
            let mut value = 0;
            // SAFETY: the driver writes a number to `value`.
            unsafe { call!(self.api, cuDeviceGetAttribute(&raw mut value, attribute, self.device)) }?;
            all &= value != 0;
        }
        Ok(all)
    }

    /// Free and total memory of the GPU, in bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64), DriverError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the driver writes two numbers. The context is current.
        unsafe { call!(self.api, cuMemGetInfo_v2(&raw mut free, &raw mut total)) }?;
        Ok((free as u64, total as u64))
    }

    /// Waits for all work of this process on the GPU.
    pub(crate) fn synchronize(&self) -> Result<(), DriverError> {
        self.enter()?;
        // SAFETY: takes no arguments. The context is current.
        unsafe { call!(self.api, cuCtxSynchronize()) }
    }

    /// The GPU's memory as a location.
    pub(super) fn location(&self) -> Location {
        Location { kind: 1, device: self.device }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn gpus_have_the_names_of_nvidias_tools() {
        let uuid: [u8; 16] = std::array::from_fn(|at| at as u8);
        assert_eq!(super::gpu_name(&uuid), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
