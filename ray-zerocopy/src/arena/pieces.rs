//! Containers as lists of pieces, for a store that copies them: the bytes of large tensors stay where they are.
//!
//! An arena in a memfd would be a second copy of the weights until the store has the third one.

use super::builder::{ArenaBuilder, Plan};
use super::source::digest;
use crate::error::arena::ArenaError;

/// Alignment of pieces in the container, and of their sizes, except that of the last one. Ray's store places buffers of
/// such sizes next to each other.
const ALIGNMENT: usize = 64;
/// Size of a tensor from which on it is a piece of its own.
const LARGE: usize = 64 << 10;

impl ArenaBuilder {
    /// Returns the bytes of the container in order. Checksums are computed; the bytes must not change until they
    /// have been copied.
    ///
    /// # Errors
    /// If a tensor cannot be read, or is borrowed from elsewhere.
    pub(crate) fn pieces(self) -> Result<Vec<bytes::Bytes>, ArenaError> {
        let mut plan = self.plan()?;
        if !plan.borrowed.is_empty() {
            return Err(ArenaError::InStore);
        }
        plan.compute_checksums()?;
        plan.cut()
    }
}

impl Plan {
    fn compute_checksums(&mut self) -> Result<(), ArenaError> {
        for ((blob, source), descriptor) in self.sources.iter().zip(&self.descriptors) {
            let failed = |reason| ArenaError::Write { entry: descriptor.name.clone(), reason };
            let hash = digest(&**source).map_err(failed)?;
            let blob = &mut self.manifest.blobs[*blob as usize];
            if let Some(expected) = source.checksum() {
                blob.check(expected, hash)?;
            }
            blob.blake3 = Some(hash.to_hex().to_string());
        }
        // The head has the same size as before, since all checksums have the same length.
        self.frame = self.frame()?;
        Ok(())
    }

    fn cut(mut self) -> Result<Vec<bytes::Bytes>, ArenaError> {
        let mut pieces = Pieces { done: Vec::new(), open: std::mem::take(&mut self.frame.head), len: 0 };
        for (((_, source), descriptor), offset) in self.sources.iter().zip(&self.descriptors).zip(&self.frame.offsets) {
            pieces.pad(*offset as usize);
            match source.in_memory().filter(|bytes| bytes.len() >= LARGE) {
                Some(bytes) => pieces.add(bytes),
                None => source
                    .stream(&mut |chunk| {
                        pieces.open.extend_from_slice(chunk);
                        Ok(())
                    })
                    .map_err(|reason| ArenaError::Write { entry: descriptor.name.clone(), reason })?,
            }
        }
        pieces.pad(self.frame.len as usize);
        pieces.close();
        Ok(pieces.done)
    }
}

/// The pieces of a container that is written from start to end.
struct Pieces {
    done: Vec<bytes::Bytes>,
    /// The piece that is being written.
    open: Vec<u8>,
    /// The size of the pieces that are done.
    len: usize,
}

impl Pieces {
    /// Writes zeros up to an offset of the container.
    fn pad(&mut self, offset: usize) {
        self.open.resize(offset - self.len, 0);
    }

    /// Adds bytes in place, at an aligned offset.
    fn add(&mut self, bytes: &bytes::Bytes) {
        self.close();
        let whole = bytes.len() / ALIGNMENT * ALIGNMENT;
        self.len += whole;
        self.done.push(bytes.slice(..whole));
        self.open.extend_from_slice(&bytes[whole..]);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.len += self.open.len();
            self.done.push(std::mem::take(&mut self.open).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;

    use super::{ALIGNMENT, LARGE};
    use crate::arena::arena::Arena;
    use crate::arena::parts::{Part, arena_of_parts, pieces_of_parts};
    use crate::arena::store::Container;

    #[test]
    fn pieces_are_the_bytes_of_the_container() {
        let large: Vec<u8> = (0..LARGE + 13).map(|index| (index % 251) as u8).collect();
        let parts = || {
            let part = |path: &str, bytes: Vec<u8>| Part {
                path: path.to_owned(),
                dtype: DType::U8,
                shape: vec![bytes.len()],
                bytes: bytes.into(),
            };
            let last = large.iter().rev().copied().collect();
            vec![part("a", vec![1; 5]), part("b", large.clone()), part("c", vec![2; 300]), part("d", last)]
        };
        let values = || vec![("about".to_owned(), vec![7; 99])];
        let sealed = arena_of_parts("test", parts(), values(), 100).unwrap();
        let pieces = pieces_of_parts("test", parts(), values(), 100).unwrap();
        assert!(pieces.len() >= 4, "the large tensors are pieces of their own");
        assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() % ALIGNMENT == 0));
        let whole = bytes::Bytes::from(pieces.concat());
        assert_eq!(whole, sealed.whole());
        let opened = Arena::from_containers([Container::in_store(whole, None)]).unwrap();
        assert_eq!(opened.id(), sealed.id());
        opened.verify().unwrap();
    }
}
