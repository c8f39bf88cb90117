//! Sources of the bytes of an arena.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use burn::tensor::Bytes;

use super::file::Part;
use super::index::BlobLocation;
use super::io::{read_at, stream_file};
use crate::tensor::source::{BlobSource, SAMPLE, sample};

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

/// Bytes that are borrowed from an arena.
pub(super) struct Borrowed(pub(super) bytes::Bytes);

impl BlobSource for Borrowed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        sink(&self.0)
    }

    fn identity(&self) -> Option<(usize, usize)> {
        (!self.0.is_empty()).then(|| (self.0.as_ptr() as usize, 0))
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        Ok(sample(&self.0))
    }
}

/// A blob of an arena in a file.
pub(super) struct FileSlice {
    pub(super) part: Arc<Part>,
    pub(super) place: BlobLocation,
    /// In hexadecimal. Empty if it is not known.
    pub(super) checksum: String,
}

impl FileSlice {
    /// The size and the checksum.
    pub(super) fn key(&self) -> (usize, String) {
        (self.place.len, self.checksum.clone())
    }

    pub(super) fn checksum_text(&self) -> &str {
        &self.checksum
    }
}

impl BlobSource for FileSlice {
    fn len(&self) -> usize {
        self.place.len
    }

    fn stream(&self, sink: &mut dyn FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        stream_file(self.part.file(), self.place.offset as u64, self.place.len as u64, sink)
    }

    fn identity(&self) -> Option<(usize, usize)> {
        (self.place.len > 0).then_some((Arc::as_ptr(&self.part) as usize, self.place.offset))
    }

    fn range(&self) -> Option<(BorrowedFd<'_>, u64)> {
        Some((self.part.file().as_fd(), self.place.offset as u64))
    }

    fn checksum(&self) -> Option<&str> {
        (!self.checksum.is_empty()).then_some(&self.checksum)
    }

    fn sample(&self) -> Result<Vec<u8>, String> {
        let (start, len) = (self.place.offset as u64, self.place.len);
        let size = SAMPLE.min(len);
        let mut bytes = vec![0; 2 * size];
        let (front, back) = bytes.split_at_mut(size);
        read_at(self.part.file(), front, start).map_err(|error| error.to_string())?;
        read_at(self.part.file(), back, start + (len - size) as u64).map_err(|error| error.to_string())?;
        Ok(bytes)
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
