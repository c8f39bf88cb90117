//! The manifest of an arena, as plain serialisable data.

use std::fmt;

use burn::tensor::DType;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::region::Stamp;
use crate::tensor::kind::TensorKind;

/// The version of the manifest that this build writes and reads.
pub(super) const FORMAT: u32 = 2;

/// Identifies the content of an arena: equal ids mean equal weights, copied fields and schema.
///
/// The id also depends on the ids of burn's parameters. A pipeline that is loaded and shared again
/// keeps them, except for the running statistics of a norm, to which burn assigns new ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArenaId(pub(crate) [u8; 32]);

impl ArenaId {
    /// Returns all 64 digits in hexadecimal. `Display` writes the first 12.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// An id that is serialised in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HexId(pub(crate) ArenaId);

impl Serialize for HexId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_hex())
    }
}

impl<'de> Deserialize<'de> for HexId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash = blake3::Hash::from_hex(&text).map_err(serde::de::Error::custom)?;
        Ok(Self(ArenaId(*hash.as_bytes())))
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

/// A tensor of the pipeline: its path, its blob, and its dtype and shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TensorEntry {
    /// The path in the pipeline, such as `heads["fr"].2.weight`.
    pub path: String,
    /// The index of the blob with the bytes. Several entries may name the same one.
    pub blob: u32,
    pub kind: TensorKind,
    pub dtype: DType,
    /// The shape of the stored bytes. For a parameter that burn saves transposed, it differs from
    /// the shape in the pipeline.
    pub shape: Vec<usize>,
    /// burn's id of the parameter. `None` for a bare tensor.
    pub param: Option<u64>,
    /// Why the tensor is not borrowed from its file, if borrowing was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A copied field, whose serialised value is in a blob.
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

/// A named range of bytes in the container, in a file or in a base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Blob {
    /// The name of the tensor in the burnpack container.
    pub name: String,
    /// The checksum. `None` for bytes that are borrowed from a file, which are not read when it is
    /// shared.
    pub blake3: Option<String>,
    /// The location of the bytes, if they are in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileBlob>,
    /// The location of the bytes, if they are in the container of another arena.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseBlob>,
}

impl Blob {
    /// Returns whether the bytes are in the container.
    pub fn is_own(&self) -> bool {
        self.file.is_none() && self.base.is_none()
    }
}

/// A range of bytes in one of the manifest's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FileBlob {
    /// The index of the file.
    pub file: u32,
    pub offset: u64,
    pub len: u64,
}

/// A range of bytes in the container of one of the manifest's bases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct BaseBlob {
    /// The index of the base.
    pub base: u32,
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
    /// Paths of modules without tensors and names of enum variants. They are rebuilt from the
    /// config, and compared with it.
    pub structure: Vec<String>,
    pub blobs: Vec<Blob>,
    /// The files that tensors are borrowed from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Stamp>,
    /// The arenas that tensors and copied fields are borrowed from, by content: the manifest is the same
    /// in memory and in a file, and on every machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bases: Vec<HexId>,
}

impl Manifest {
    /// Computes the schema fingerprint of a pipeline type with these tensors.
    pub fn fingerprint(pipeline: &str, tensors: &[TensorEntry]) -> String {
        // BLAKE3 is fast on long inputs, and slow on many short ones.
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
        // Most tensors have the dtype of the preceding one, so its name is cached.
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
