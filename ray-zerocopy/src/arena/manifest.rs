//! What an arena says of itself. Plain data; knows nothing of memory.

use std::fmt;

use burn::tensor::DType;
use serde::{Deserialize, Serialize};

use super::region::Stamp;
use crate::tensor::kind::TensorKind;

/// The version of the manifest that this build writes and reads.
pub(super) const FORMAT: u32 = 2;

/// Names the content of an arena: equal ids mean equal weights, copied fields and schema.
///
/// The ids of burn's parameters count too. A pipeline that is loaded and shared again has the same ones, except for the running
/// statistics of a norm, to which burn gives new ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArenaId(pub(crate) [u8; 32]);

impl ArenaId {
    /// All of it, in hexadecimal; printing it gives the first 12 digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for ArenaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ArenaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArenaId({self})")
    }
}

/// A tensor of the pipeline: where it lives in the pipeline, and in which blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TensorEntry {
    /// The path in the pipeline, `heads["fr"].2.weight`.
    pub path: String,
    /// The blob that holds the bytes; several entries may name the same one.
    pub blob: u32,
    pub kind: TensorKind,
    pub dtype: DType,
    /// The shape of the stored bytes. A parameter that burn saves transposed has another one in the pipeline.
    pub shape: Vec<usize>,
    /// burn's id of the parameter; none for a bare tensor.
    pub param: Option<u64>,
    /// Why the tensor is not borrowed from the file that it comes from, if it was to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A field that is copied: its serialised value is in a blob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CopyEntry {
    pub path: String,
    pub blob: u32,
}

/// A control value of a module, such as the training flag of a dropout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlagEntry {
    pub path: String,
    pub enabled: bool,
}

/// A named run of bytes, in the container or in a file beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Blob {
    /// The name of the tensor in the burnpack container.
    pub name: String,
    /// The checksum; none for bytes that are borrowed from a file, which nobody has read yet.
    pub blake3: Option<String>,
    /// Where the bytes are, if they are not in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileBlob>,
}

/// A run of bytes in one of the arena's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FileBlob {
    /// Which one.
    pub file: u32,
    pub offset: u64,
    pub len: u64,
}

/// The table of contents of an arena.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub format: u32,
    /// The Rust type of the pipeline.
    pub pipeline: String,
    /// BLAKE3 over the pipeline's type and the path, dtype and shape of each tensor.
    pub fingerprint: String,
    pub tensors: Vec<TensorEntry>,
    pub copies: Vec<CopyEntry>,
    pub flags: Vec<FlagEntry>,
    /// Paths of modules without tensors and names of enum variants: they travel with the config, and are compared.
    pub structure: Vec<String>,
    pub blobs: Vec<Blob>,
    /// The files beside the container, of which weights are borrowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Stamp>,
}

impl Manifest {
    /// The schema fingerprint of a pipeline type with these tensors.
    pub fn fingerprint(pipeline: &str, tensors: &[TensorEntry]) -> String {
        // BLAKE3 is fast on long runs of bytes, and slow on many short ones.
        const RUN: usize = 64 << 10;

        let mut hasher = blake3::Hasher::new();
        let mut run = Vec::with_capacity(2 * RUN);
        let mut field = |bytes: &[u8]| {
            run.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            run.extend_from_slice(bytes);
            if run.len() >= RUN {
                hasher.update(&run);
                run.clear();
            }
        };
        field(pipeline.as_bytes());
        // Most tensors have the dtype of the one before.
        let mut dtype: Option<(DType, String)> = None;
        for tensor in tensors {
            field(tensor.path.as_bytes());
            if dtype.as_ref().is_none_or(|(known, _)| *known != tensor.dtype) {
                dtype = Some((tensor.dtype, format!("{:?}", tensor.dtype)));
            }
            field(dtype.as_ref().map_or(&[], |(_, name)| name.as_bytes()));
            tensor.shape.iter().for_each(|&dim| field(&(dim as u64).to_le_bytes()));
        }
        hasher.update(&run);
        hasher.finalize().to_hex().to_string()
    }
}

pub(crate) const MANIFEST_KEY: &str = "ray_zerocopy.manifest";

pub(super) const CHECKSUM_KEY: &str = "ray_zerocopy.blake3";
