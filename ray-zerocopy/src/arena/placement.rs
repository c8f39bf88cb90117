//! Files can be changed by others: whoever borrows weights from one has promised that nobody does.

#![allow(unsafe_code)]

use crate::os::sys::mapping::FileUnchanged;

/// Where the weights of a file go when it is opened or shared.
///
/// | | sealed memory (the default) | the file itself |
/// | --- | --- | --- |
/// | ready after | one copy of the bytes, which is checked on the way | nothing but the table of contents is read |
/// | memory | one copy for the machine, besides what the page cache keeps | the page cache, which the kernel may drop and read again |
/// | alignment | 256 bytes | the file's: below 64, flex computes at about half the speed |
/// | somebody writes to the file | nothing happens | **every worker computes with the new bytes** |
/// | somebody cuts the file short | nothing happens | **workers die with SIGBUS** when they read behind the end |
///
/// ```
/// use ray_zerocopy::arena::Placement;
///
/// let safe = Placement::sealed();
/// // SAFETY: the model lies in a read-only image: nobody changes it while this program runs.
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
    /// Copies the weights into sealed memory, once for the machine: nobody can change them.
    pub const fn sealed() -> Self {
        Self { in_file: None, alignment: 64 }
    }

    /// Borrows the weights from the file, through the page cache, where their alignment allows it; the others go into
    /// sealed memory.
    ///
    /// # Safety
    /// As long as the arena, a pipeline that was loaded from it, or a worker that serves it lives, nobody may write to
    /// the file or cut it short. To replace it by renaming another over it is fine.
    pub const unsafe fn in_file() -> Self {
        Self {
            in_file: Some({
                // SAFETY: this function's own contract.
                unsafe { FileUnchanged::new() }
            }),
            alignment: 64,
        }
    }

    /// The alignment in bytes that a weight needs to be borrowed from the file; 64 if nothing is said. Every weight
    /// needs that of its elements. Less than 64 saves memory and costs speed.
    #[must_use]
    pub const fn aligned(mut self, bytes: usize) -> Self {
        self.alignment = if bytes == 0 { 1 } else { bytes };
        self
    }
}
