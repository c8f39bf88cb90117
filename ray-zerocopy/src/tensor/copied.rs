//! Tensors that a load copied instead of borrowing.

use serde::{Deserialize, Serialize};

/// A tensor that was copied because its device or dtype cannot borrow it.
///
/// On a device with memory of its own, such as a GPU, every tensor is copied: its bytes went from
/// the arena's pages to the device, and staging memory of the device's driver has been freed. Tied
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
