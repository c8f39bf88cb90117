//! How a process uses a copy: as memory of burn, or as addresses.

use std::sync::Arc;

#[cfg(feature = "cuda")]
use super::burn::Buffer;
use super::sys::memory::{MappedRange, Mapping};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// Tensors of burn's CUDA backend.
    #[cfg(feature = "cuda")]
    Burn,
    /// Addresses that other libraries read.
    Addresses,
}

/// A copy that this process has mapped.
pub(super) enum Home {
    #[cfg(feature = "cuda")]
    Burn(Box<Buffer>),
    Addresses(Arc<Mapping>),
}

impl Home {
    /// Takes a mapping on a GPU.
    ///
    /// # Errors
    /// If burn does not take it.
    pub(super) fn of(mapping: Mapping, wanted: Use, index: usize) -> Result<Self, String> {
        // Only burn counts GPUs.
        let _ = index;
        match wanted {
            #[cfg(feature = "cuda")]
            Use::Burn => Buffer::adopt(index, mapping).map(|buffer| Self::Burn(Box::new(buffer))),
            Use::Addresses => Ok(Self::Addresses(Arc::new(mapping))),
        }
    }

    /// The range of `len` bytes at an offset, unless burn has the memory.
    pub(super) fn range(&self, offset: usize, len: usize) -> Option<MappedRange> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Burn(_) => None,
            Self::Addresses(mapping) => MappedRange::of(mapping, offset, len),
        }
    }

    /// Whether no tensor uses the memory any more.
    pub(super) fn is_unused(&self) -> bool {
        match self {
            #[cfg(feature = "cuda")]
            Self::Burn(buffer) => buffer.is_unused(),
            Self::Addresses(mapping) => Arc::strong_count(mapping) == 1,
        }
    }

    /// Frees the memory, which no tensor uses any more.
    pub(super) fn free(self) {
        match self {
            #[cfg(feature = "cuda")]
            Self::Burn(buffer) => buffer.free(),
            Self::Addresses(mapping) => drop(mapping),
        }
    }
}
