//! TODO.

/// Where the bytes of a tensor come from.
pub(crate) trait BlobSource: Send + Sync {
    /// Their number.
    fn len(&self) -> usize;

    /// The tensor's bytes, little-endian and contiguous, some at a time.
    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String>;

    /// What tells tensors of the same storage, layout and dtype apart from others, if the source can say.
    fn identity(&self) -> Option<(usize, usize)>;

    /// A few bytes, which equal tensors have in common, and other tensors most often have not.
    fn sample(&self) -> Result<Vec<u8>, String>;
}

/// The bytes that sources sample, from the start and from the end of a tensor.
pub(crate) const SAMPLE: usize = 2048;

/// A sample of bytes that are at hand.
pub(crate) fn sample(bytes: &[u8]) -> Vec<u8> {
    let (start, end) = (&bytes[..SAMPLE.min(bytes.len())], &bytes[bytes.len().saturating_sub(SAMPLE)..]);
    [start, end].concat()
}
