//! Tensors that a load copied instead of borrowing.

use serde::{Deserialize, Serialize};

/// A tensor that was copied because its device or dtype cannot borrow it.
///
/// On a GPU that processes do not share one copy on, every tensor is copied: its bytes went from the
/// arena's pages to the device, and staging memory of the device's driver has been freed. Tied
/// tensors exist once, and are listed once, under the first of their paths. In host memory the copy
/// is private to this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopiedTensor {
    /// The path of the tensor.
    pub path: String,
    /// Its size in the arena, in bytes.
    pub bytes: u64,
}

/// Weights of a loaded pipeline in the memory of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// The size of the copy that all processes of this user share on the GPU, in bytes. 0 if there
    /// is none.
    pub bytes: u64,
    /// Whether this process has uploaded the copy. Otherwise it has mapped that of another process.
    pub is_uploaded: bool,
    /// Why the weights were copied instead, for this process alone.
    pub why_copied: Option<String>,
    /// The GPU, as `nvidia-smi -L` names it: `GPU-` and a UUID. `None` if the weights were copied.
    #[serde(default)]
    pub gpu: Option<String>,
}
