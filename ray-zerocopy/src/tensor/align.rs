//! Alignment of tensor data.

/// Alignment of every segment, in bytes, as preferred by burn's kernels.
pub(crate) const ALIGN: usize = 64;

/// Copies `bytes` to an address that is a multiple of [`ALIGN`], which no allocator guarantees for
/// bytes.
pub(crate) fn aligned(bytes: &[u8]) -> bytes::Bytes {
    aligned_with(bytes.len(), |buffer| buffer.copy_from_slice(bytes))
}

/// Lets `fill` write `len` bytes at an address that is a multiple of [`ALIGN`].
pub(crate) fn aligned_with(len: usize, fill: impl FnOnce(&mut [u8])) -> bytes::Bytes {
    let mut buffer = vec![0; len + ALIGN];
    let start = buffer.as_ptr().align_offset(ALIGN);
    let range = start..start + len;
    fill(&mut buffer[range.clone()]);
    // The buffer is neither grown nor shrunk from here on, so it does not move.
    bytes::Bytes::from(buffer).slice(range)
}
