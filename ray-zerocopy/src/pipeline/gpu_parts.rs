//! The tensors of an arena in the memory of a GPU, as addresses: for libraries that are not burn, such as
//! PyTorch in a Python process.

use crate::arena::arena::Arena;

/// The copy of an arena's tensors on a GPU, which all processes of the user share. It exists as long as
/// one of them has it. Kernels and copies may read it; one that writes to it fails.
pub struct GpuParts {
    #[cfg(target_os = "linux")]
    ranges: Vec<Option<crate::gpu::MappedRange>>,
    bytes: u64,
    is_uploaded: bool,
}

/// Why there is no shared copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoGpuParts {
    /// The GPU has no room for the weights. The text names sizes.
    NoRoom(String),
    /// Each process has to upload the weights. The text says why.
    NotShared(String),
}

impl GpuParts {
    /// Finds the copy on GPU `index`, or uploads it. It has the tensors of at least `from` bytes.
    ///
    /// # Errors
    /// If the GPU has no room, or processes cannot share its memory.
    #[cfg(target_os = "linux")]
    pub fn open(arena: &Arena, index: usize, from: usize) -> Result<Self, NoGpuParts> {
        use burn::tensor::DType;

        use crate::gpu::{self, Layout, Part, Refusal, Use};

        let entries = &arena.manifest().tensors;
        let part = |blob: u32| {
            let len = arena.slice(blob).len();
            (len >= from).then_some(Part { blob, dtype: DType::U8, len })
        };
        let layout = Layout::of(entries.iter().filter_map(|entry| part(entry.blob)));
        let blobs: Vec<u32> = layout.parts().iter().map(|(_, part)| part.blob).collect();
        let bytes = |at: usize| Ok(arena.borrow(blobs[at]));
        let copy =
            gpu::open((index, Use::Addresses), &arena.id().0, layout, &bytes).map_err(|refusal| match refusal {
                Refusal::NoRoom(reason) => NoGpuParts::NoRoom(reason),
                Refusal::NotShared(reason) => NoGpuParts::NotShared(reason),
            })?;
        let ranges = entries.iter().map(|entry| copy.range(entry.blob, DType::U8)).collect();
        Ok(Self { ranges, bytes: copy.bytes(), is_uploaded: copy.is_uploaded() })
    }

    /// GPUs are only supported on Linux.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(target_os = "linux"))]
    pub fn open(_: &Arena, _: usize, _: usize) -> Result<Self, NoGpuParts> {
        Err(NoGpuParts::NotShared("processes share the memory of GPUs on Linux only".to_owned()))
    }

    /// The address and the size of a tensor, by its position in the arena. `None` if it is not in the copy.
    pub fn place(&self, at: usize) -> Option<(u64, usize)> {
        #[cfg(target_os = "linux")]
        return self.ranges.get(at)?.as_ref().map(|range| (range.address(), range.len()));
        #[cfg(not(target_os = "linux"))]
        {
            let _ = at;
            None
        }
    }

    /// The size of the copy, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether this process has uploaded it, and not another one.
    pub fn is_uploaded(&self) -> bool {
        self.is_uploaded
    }
}
