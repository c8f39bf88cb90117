//! Building an arena: hash, plan, write into the mapping, seal.
//!
//! No tensor is held twice. The bytes are hashed where they are, and burnpack's deferred tensors produce them again,
//! one at a time, straight into the mapped memfd.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{Bytes, DType};
use burn_pack::{MAX_METADATA_SIZE, MAX_TENSOR_COUNT, MAX_TENSOR_SIZE, Writer};

use super::manifest::{Blob, FORMAT};
use super::sys::{self, Mapping};
use super::{Arena, ArenaError, CopyEntry, FlagEntry, Manifest, TensorEntry};

pub(super) const MANIFEST_KEY: &str = "ray_zerocopy.manifest";
pub(super) const CHECKSUM_KEY: &str = "ray_zerocopy.blake3";

/// Where the bytes of a tensor come from. Asked twice: once for the checksum, once for the copy into the arena.
pub(crate) trait BlobSource: Send + Sync {
    /// The tensor's bytes, little-endian and contiguous, without a copy where the backend allows it.
    fn bytes(&self) -> Result<Bytes, String>;
    /// What tells tensors of the same storage, layout and dtype apart from others, if the backend can say.
    fn identity(&self) -> Option<(usize, usize)>;
}

/// Collects entries and writes them as an arena.
pub(crate) struct ArenaBuilder {
    manifest: Manifest,
    blobs: Vec<burn_pack::Tensor>,
    by_content: HashMap<(blake3::Hash, String), u32>,
    by_identity: HashMap<(usize, usize, String), u32>,
    /// Keeps the storages alive while their addresses are keys of `by_identity`.
    sources: Vec<Arc<dyn BlobSource>>,
    logical_bytes: u64,
}

impl ArenaBuilder {
    pub(crate) fn new(pipeline: &str) -> Self {
        Self {
            manifest: Manifest {
                format: FORMAT,
                pipeline: pipeline.to_owned(),
                fingerprint: String::new(),
                tensors: Vec::new(),
                copies: Vec::new(),
                flags: Vec::new(),
                structure: Vec::new(),
                blobs: Vec::new(),
            },
            blobs: Vec::new(),
            by_content: HashMap::new(),
            by_identity: HashMap::new(),
            sources: Vec::new(),
            logical_bytes: 0,
        }
    }

    /// Adds a tensor. Its bytes are stored once, however many entries have the same storage or the same content.
    pub(crate) fn tensor(&mut self, mut entry: TensorEntry, source: Arc<dyn BlobSource>) -> Result<(), ArenaError> {
        let layout = format!("{:?}{:?}", entry.dtype, entry.shape);
        let identity = source.identity().map(|(at, offset)| (at, offset, layout));
        let known = identity.as_ref().and_then(|identity| self.by_identity.get(identity)).copied();
        entry.blob = match known {
            Some(blob) => blob,
            None => self.store(&entry, &source)?,
        };
        if let Some(identity) = identity {
            self.by_identity.insert(identity, entry.blob);
            self.sources.push(source);
        }
        self.logical_bytes += self.blobs[entry.blob as usize].byte_len() as u64;
        self.manifest.tensors.push(entry);
        Ok(())
    }

    fn store(&mut self, entry: &TensorEntry, source: &Arc<dyn BlobSource>) -> Result<u32, ArenaError> {
        let bytes = source.bytes().map_err(|reason| ArenaError::Write { entry: entry.path.clone(), reason })?;
        within(&format!("the bytes of `{}`", entry.path), bytes.len(), MAX_TENSOR_SIZE)?;
        let (hash, len) = (blake3::hash(&bytes), bytes.len());
        drop(bytes);
        // Two dtypes of the same bytes are two entries of the container, which has one dtype for each.
        let content = (hash, format!("{:?}", entry.dtype));
        if let Some(&blob) = self.by_content.get(&content) {
            return Ok(blob);
        }
        let provider = Arc::clone(source);
        let tensor = burn_pack::Tensor::deferred(
            entry.path.clone(),
            entry.dtype,
            entry.shape.clone(),
            entry.param,
            len,
            move || provider.bytes().map_err(burn_pack::Error::IoError),
        );
        let blob = self.blob(tensor, hash);
        self.by_content.insert(content, blob);
        Ok(blob)
    }

    fn blob(&mut self, tensor: burn_pack::Tensor, hash: blake3::Hash) -> u32 {
        let index = self.blobs.len() as u32;
        self.manifest.blobs.push(Blob { name: tensor.name.clone(), blake3: hash.to_hex().to_string() });
        self.blobs.push(tensor);
        index
    }

    /// Adds the serialised value of a copied field.
    pub(crate) fn copy(&mut self, path: &str, value: Vec<u8>) {
        let hash = blake3::hash(&value);
        let len = value.len();
        let tensor =
            burn_pack::Tensor::new(format!("copied: {path}"), DType::U8, vec![len], None, Bytes::from_bytes_vec(value));
        let blob = self.blob(tensor, hash);
        self.manifest.copies.push(CopyEntry { path: path.to_owned(), blob });
    }

    pub(crate) fn flag(&mut self, path: String, enabled: bool) {
        self.manifest.flags.push(FlagEntry { path, enabled });
    }

    pub(crate) fn structure(&mut self, what: String) {
        self.manifest.structure.push(what);
    }

    /// Writes the container into a fresh memfd, seals it and opens it.
    ///
    /// # Errors
    /// If the kernel refuses the memory, or a tensor cannot be read.
    pub(crate) fn seal(mut self) -> Result<Arena, ArenaError> {
        self.manifest.fingerprint = Manifest::fingerprint(&self.manifest.pipeline, &self.manifest.tensors);
        within("the tensors and copied fields of the pipeline", self.blobs.len(), MAX_TENSOR_COUNT)?;
        let write = |reason: String| ArenaError::Write { entry: self.manifest.pipeline.clone(), reason };
        let manifest = serde_json::to_string(&self.manifest).map_err(|error| write(error.to_string()))?;
        // The container has a table of its own besides, which is smaller than ours.
        within("the bytes of the table of contents", manifest.len(), MAX_METADATA_SIZE as usize / 2)?;
        let checksum = blake3::hash(manifest.as_bytes()).to_hex();
        let writer =
            Writer::new(self.blobs).with_metadata(MANIFEST_KEY, &manifest).with_metadata(CHECKSUM_KEY, &checksum);
        let len = writer.size().map_err(|error| write(error.to_string()))?;
        let system = |(call, error): (&str, std::io::Error)| ArenaError::System {
            call: call.to_owned(),
            bytes: len as u64,
            reason: error.to_string(),
        };
        let fd = sys::create("ray-zerocopy", len as u64).map_err(system)?;
        Mapping::fill(&fd, len, |memory| writer.write_into(memory))
            .map_err(system)?
            .map_err(|error| write(error.to_string()))?;
        Arena::from_memfd(fd)
    }
}

/// A container of these tensors and this text as its manifest, with the checksum that belongs to it.
pub(crate) fn sealed_container(blobs: Vec<burn_pack::Tensor>, manifest: &str) -> Result<Bytes, String> {
    let checksum = blake3::hash(manifest.as_bytes()).to_hex();
    let writer = Writer::new(blobs).with_metadata(MANIFEST_KEY, manifest).with_metadata(CHECKSUM_KEY, &checksum);
    writer.into_bytes().map_err(|error| error.to_string())
}

/// burnpack refuses to read what is larger: better an error before anything is written.
fn within(what: &str, found: usize, limit: usize) -> Result<(), ArenaError> {
    match found <= limit {
        true => Ok(()),
        false => Err(ArenaError::TooLarge { what: what.to_owned(), found: found as u64, limit: limit as u64 }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use burn::tensor::{Bytes, DType};

    use super::{ArenaBuilder, ArenaError, BlobSource, MAX_TENSOR_COUNT};
    use crate::arena::{TensorEntry, TensorKind};

    struct Number(u64);

    impl BlobSource for Number {
        fn bytes(&self) -> Result<Bytes, String> {
            Ok(Bytes::from_elems(vec![self.0]))
        }

        fn identity(&self) -> Option<(usize, usize)> {
            None
        }
    }

    fn of(numbers: u64) -> Result<crate::Arena, ArenaError> {
        let mut builder = ArenaBuilder::new("numbers");
        for number in 0..numbers {
            let entry = TensorEntry {
                path: number.to_string(),
                blob: 0,
                kind: TensorKind::Int,
                dtype: DType::U64,
                shape: vec![1],
                param: None,
            };
            builder.tensor(entry, Arc::new(Number(number)))?;
        }
        builder.seal()
    }

    #[test]
    fn more_than_a_container_takes_is_refused_before_it_is_written() {
        let limit = MAX_TENSOR_COUNT as u64;
        assert_eq!(of(1000).map(|arena| arena.stored_bytes()), Ok(8000));
        let error = of(limit + 1).map(drop).unwrap_err();
        assert!(
            matches!(error, ArenaError::TooLarge { found, limit: most, .. } if (found, most) == (limit + 1, limit))
        );
    }
}
