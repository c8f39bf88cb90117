//! The memory of GPUs that the driver counts for each process.

use std::collections::HashMap;

/// Returns the memory in bytes, by process id. Empty without the feature `cuda`.
pub(super) fn by_process() -> HashMap<u32, u64> {
    #[cfg(all(feature = "gpu", target_os = "linux"))]
    return crate::gpu::memory_by_process();
    #[cfg(not(all(feature = "gpu", target_os = "linux")))]
    return HashMap::new();
}
