//! Sources of tensor bytes.

use std::os::fd::BorrowedFd;

use crate::os::byte_size::mib;

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

    /// The bytes, if they are in memory as they are.
    #[cfg(feature = "ray")]
    fn in_memory(&self) -> Option<&bytes::Bytes> {
        None
    }

    /// The checksum that the bytes must have, in hexadecimal, if it is known.
    fn checksum(&self) -> Option<&str> {
        None
    }

    /// A few bytes that are the same for equal tensors, and most often differ for other tensors.
    fn sample(&self) -> Result<Vec<u8>, String>;
}

/// Bytes in memory that something else has too, such as an arena.
pub(crate) struct Shared(pub(crate) bytes::Bytes);

impl BlobSource for Shared {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn stream(&self, sink: Sink<'_>) -> Result<(), String> {
        sink(&self.0)
    }

    fn identity(&self) -> Option<(usize, usize)> {
        None
    }

    #[cfg(feature = "ray")]
    fn in_memory(&self) -> Option<&bytes::Bytes> {
        Some(&self.0)
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        Ok(sample(&self.0))
    }
}

/// Bytes that are computed when they are written, so that not all of them are in memory at a time.
pub(crate) struct Computed {
    /// Differs from that of every other source with the same number of bytes.
    pub(crate) name: String,
    pub(crate) len: usize,
    pub(crate) compute: Compute,
}

/// Takes bytes.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

/// Computes bytes, and passes them on.
pub(crate) type Compute = Box<dyn Fn(Sink<'_>) -> Result<(), String> + Send + Sync>;

impl BlobSource for Computed {
    fn len(&self) -> usize {
        self.len
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        // Asked for first: where there is not enough, the computation would end the program.
        let mut room = Vec::<u8>::new();
        let asked = room.try_reserve_exact(self.len);
        asked.map_err(|_| format!("there is no memory for {} MiB", mib(self.len as u64)))?;
        drop(room);
        (self.compute)(sink)
    }

    fn identity(&self) -> Option<(usize, usize)> {
        None
    }

    /// Equal bytes of two sources are stored twice: to find them, all would have to be computed beforehand.
    fn sample(&self) -> Result<Vec<u8>, String> {
        Ok(self.name.clone().into_bytes())
    }
}

/// Number of bytes that sources sample at the start and at the end of a tensor.
pub(crate) const SAMPLE: usize = 2048;

/// Samples bytes in memory.
pub(crate) fn sample(bytes: &[u8]) -> Vec<u8> {
    let (start, end) = (&bytes[..SAMPLE.min(bytes.len())], &bytes[bytes.len().saturating_sub(SAMPLE)..]);
    [start, end].concat()
}
