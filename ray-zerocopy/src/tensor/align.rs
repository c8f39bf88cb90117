//! TODO.

/// Alignment of every segment: what burn's kernels like best.
pub(crate) const ALIGN: usize = 64;

/// A copy of `bytes` that starts at a multiple of [`ALIGN`], which no allocator promises for bytes.
pub(crate) fn aligned(bytes: &[u8]) -> bytes::Bytes {
    let mut buffer = vec![0; bytes.len() + ALIGN];
    let start = buffer.as_ptr().align_offset(ALIGN);
    let range = start..start + bytes.len();
    buffer[range.clone()].copy_from_slice(bytes);
    // The buffer is neither grown nor shrunk from here on: it stays where it is.
    bytes::Bytes::from(buffer).slice(range)
}
