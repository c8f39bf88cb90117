//! Sources of the bytes of an arena.

use crate::tensor::source::BlobSource;
use crate::tensor::source::sample;
use burn::tensor::Bytes;

/// Bytes in memory, such as the serialised value of a copied field.
pub(super) struct Value(pub(super) Bytes);

impl BlobSource for Value {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        sink(&self.0)
    }

    fn identity(&self) -> Option<(usize, usize)> {
        None
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        Ok(sample(&self.0))
    }
}

/// Returns the checksum of a tensor's bytes.
pub(super) fn digest(source: &dyn BlobSource) -> Result<blake3::Hash, String> {
    let mut hasher = blake3::Hasher::new();
    source.stream(&mut |bytes| {
        hasher.update_rayon(bytes);
        Ok(())
    })?;
    Ok(hasher.finalize())
}
