//! TODO.

use serde::{Deserialize, Serialize};

/// A tensor that could not be borrowed, because of its device or dtype.
///
/// On a device with memory of its own, such as a GPU, that is every tensor: its bytes went from the arena's pages to the
/// device, and what the device's driver needed on the way is given back. Tied tensors are there once, and are listed once,
/// under the first of their paths. In host memory it is a private copy of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopiedTensor {
    /// The path of the tensor.
    pub path: String,
    /// Its size in the arena, in bytes.
    pub bytes: u64,
}
