//! Placement of weights: in sealed memory, or in a file that the caller guarantees does not change.

#![allow(unsafe_code)]

use crate::os::sys::mapping::FileUnchanged;

/// Where the weights of a file are placed when the file is opened or shared.
///
/// | | sealed memory (the default) | the file itself |
/// | --- | --- | --- |
/// | ready after | one copy of the bytes, which verifies them | the table of contents is read |
/// | memory | one copy for the machine, besides the page cache | the page cache, which the kernel may drop and read again |
/// | alignment | 256 bytes | that of the file: below 64, flex computes at about half the speed |
/// | a process writes to the file | no effect | **every worker computes with the new bytes** |
/// | a process truncates the file | no effect | **workers die of SIGBUS** when they read beyond the end |
///
/// ```
/// use ray_zerocopy::arena::Placement;
///
/// let safe = Placement::sealed();
/// // SAFETY: the model is in a read-only image, so it does not change while this program runs.
/// let in_place = unsafe { Placement::in_file() }.aligned(64);
/// assert_ne!(safe, in_place);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    pub(crate) in_file: Option<FileUnchanged>,
    pub(crate) alignment: usize,
}

impl Default for Placement {
    fn default() -> Self {
        Self::sealed()
    }
}

impl Placement {
    /// Copies the weights into sealed memory, once for the machine, where they cannot change.
    pub const fn sealed() -> Self {
        Self { in_file: None, alignment: 64 }
    }

    /// Borrows the weights from the file, through the page cache, if their alignment allows it. The
    /// others are copied into sealed memory.
    ///
    /// # Safety
    /// The file must not be written to or truncated, by any process, as long as the arena, a
    /// pipeline that was loaded from it, or a worker that serves it exists. Replacing the file by
    /// renaming another one over it is allowed.
    pub const unsafe fn in_file() -> Self {
        Self {
            in_file: Some({
                // SAFETY: the contract of this function is that of `FileUnchanged::new`.
                unsafe { FileUnchanged::new() }
            }),
            alignment: 64,
        }
    }

    /// Sets the alignment in bytes that a weight must have to be borrowed from the file. Default:
    /// 64. Every weight must also be aligned for its elements. Less than 64 saves memory and costs
    /// speed.
    #[must_use]
    pub const fn aligned(mut self, bytes: usize) -> Self {
        self.alignment = if bytes == 0 { 1 } else { bytes };
        self
    }
}
