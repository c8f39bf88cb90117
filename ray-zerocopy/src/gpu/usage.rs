//! The memory of GPUs that the driver counts for each process, from NVIDIA's management library.
//!
//! The driver counts memory for the process that has allocated it: a shared copy for the process
//! that has uploaded it, and none for those that have mapped it. Each also has a context.

use std::collections::HashMap;

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;

#[cfg(any(feature = "cuda", feature = "libtorch"))]
use super::sys::context::gpu_name;

/// The free memory of a GPU in bytes. `None` if there is no such library. It numbers GPUs in another order than the driver, so
/// it is asked by the GPU's UUID.
#[cfg(any(feature = "cuda", feature = "libtorch"))]
pub(super) fn free_memory(uuid: &[u8; 16]) -> Option<u64> {
    let library = Nvml::init().ok()?;
    let device = library.device_by_uuid(gpu_name(uuid)).ok()?;
    device.memory_info().ok().map(|memory| memory.free)
}

/// Returns the memory in bytes, by process id. Empty if there is no such library, or it does not say:
/// in a container it may see no processes.
pub(crate) fn memory_by_process() -> HashMap<u32, u64> {
    let mut used = HashMap::new();
    let Ok(library) = Nvml::init() else { return used };
    for number in 0..library.device_count().unwrap_or(0) {
        let Ok(device) = library.device_by_index(number) else { continue };
        for process in device.running_compute_processes().unwrap_or_default() {
            if let UsedGpuMemory::Used(bytes) = process.used_gpu_memory {
                *used.entry(process.pid).or_default() += bytes;
            }
        }
    }
    used
}
