//! Alignment of tensor data.

/// Alignment of every segment, in bytes, as preferred by burn's kernels.
pub(crate) const ALIGN: usize = 64;

/// Copies `bytes` to an address that is a multiple of [`ALIGN`], which no allocator guarantees for
/// bytes.
pub(crate) fn aligned(bytes: &[u8]) -> bytes::Bytes {
    let mut buffer = vec![0; bytes.len() + ALIGN];
    let start = buffer.as_ptr().align_offset(ALIGN);
    let range = start..start + bytes.len();
    buffer[range.clone()].copy_from_slice(bytes);
    // The buffer is neither grown nor shrunk from here on, so it does not move.
    bytes::Bytes::from(buffer).slice(range)
}
