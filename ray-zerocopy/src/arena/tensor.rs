//! Public description of the tensors of an arena.

use std::path::Path;

use burn::tensor::DType;

use super::manifest::ArenaId;
use crate::tensor::kind::TensorKind;

/// A tensor in an arena.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SharedTensor<'a> {
    /// Its path in the pipeline, such as `heads["fr"].2.weight`.
    pub path: &'a str,
    /// Whether its elements are floats, integers or booleans.
    pub kind: TensorKind,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape as it is stored.
    pub shape: &'a [usize],
    /// Its size in bytes. The bytes of tied and equal tensors are in the arena once.
    pub bytes: u64,
    /// The arena that it is borrowed from, if it is not stored in this one: see
    /// [`Arena::variant`](crate::Arena::variant).
    pub base: Option<ArenaId>,
    /// Where its bytes are.
    pub placed: Location<'a>,
}

/// Location of a tensor of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location<'a> {
    /// In sealed memory, which cannot change, aligned to 256 bytes.
    Sealed {
        /// Why it is not borrowed from its file, if borrowing was requested.
        reason: Option<&'a str>,
    },
    /// In the sealed memory of another arena.
    Base {
        /// The other arena.
        id: ArenaId,
    },
    /// In a file, through the page cache.
    File {
        /// The file.
        path: &'a Path,
        /// Its offset in the file. Below an alignment of 64 bytes, flex computes at about half the
        /// speed.
        offset: u64,
    },
}
