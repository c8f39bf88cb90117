//! Sources of tensor bytes.

use std::os::fd::BorrowedFd;

/// A source of the bytes of a tensor.
pub(crate) trait BlobSource: Send + Sync {
    /// Number of bytes.
    fn len(&self) -> usize;

    /// Streams the tensor's bytes, little-endian and contiguous, in chunks.
    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String>;

    /// Identity of the storage, layout and dtype, or `None` if the source has none. Sources with
    /// equal identities hold equal tensors.
    fn identity(&self) -> Option<(usize, usize)>;

    /// The file and the offset of the bytes, if they are a range of a file as they are.
    fn range(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }

    /// The checksum that the bytes must have, in hexadecimal, if it is known.
    fn checksum(&self) -> Option<&str> {
        None
    }

    /// A few bytes that are the same for equal tensors, and most often differ for other tensors.
    fn sample(&self) -> Result<Vec<u8>, String>;
}

/// Number of bytes that sources sample at the start and at the end of a tensor.
pub(crate) const SAMPLE: usize = 2048;

/// Samples bytes in memory.
pub(crate) fn sample(bytes: &[u8]) -> Vec<u8> {
    let (start, end) = (&bytes[..SAMPLE.min(bytes.len())], &bytes[bytes.len().saturating_sub(SAMPLE)..]);
    [start, end].concat()
}
