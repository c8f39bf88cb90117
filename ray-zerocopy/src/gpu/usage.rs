//! The memory of GPUs that the driver counts for each process, from NVIDIA's management library.
//!
//! The driver counts memory for the process that has allocated it: a shared copy for the process
//! that has uploaded it, and none for those that have mapped it. Each also has a context.

use std::collections::HashMap;

use nvml_wrapper::Nvml;
use nvml_wrapper::enums::device::UsedGpuMemory;

/// The free memory of a GPU in bytes. `None` if there is no such library, or it numbers GPUs in another
/// way.
pub(super) fn free_memory(index: usize) -> Option<u64> {
    // With this variable, the number is one among the visible ones.
    if std::env::var_os("CUDA_VISIBLE_DEVICES").is_some() {
        return None;
    }
    let library = Nvml::init().ok()?;
    let device = library.device_by_index(index.try_into().ok()?).ok()?;
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
