//! What an arena says of its tensors.

use std::path::Path;

use burn::tensor::DType;

use crate::tensor::kind::TensorKind;

/// A tensor in an arena.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct SharedTensor<'a> {
    /// Its path in the pipeline, `heads["fr"].2.weight`.
    pub path: &'a str,
    /// What it holds.
    pub kind: TensorKind,
    /// The type of its elements.
    pub dtype: DType,
    /// Its shape, as it is stored.
    pub shape: &'a [usize],
    /// Its size. Tied and equal tensors have the same bytes, which are in the arena once.
    pub bytes: u64,
    /// Whether it lies in sealed memory.
    pub placed: Location<'a>,
}

/// Where a tensor of an arena lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location<'a> {
    /// In sealed memory, which nobody can change, 256-byte aligned.
    Sealed {
        /// Why it is not borrowed from the file that it comes from, if that was asked for.
        reason: Option<&'a str>,
    },
    /// In a file, through the page cache.
    File {
        /// The file.
        path: &'a Path,
        /// Where it starts. Below an alignment of 64 bytes, flex computes at about half the speed.
        offset: u64,
    },
}
