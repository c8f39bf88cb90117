//! Parser of safetensors files. The `safetensors` crate validates the header.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use burn::tensor::{BoolStore, DType};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensorError};

use super::entry::Entry;
use crate::arena::io::read_at;
use crate::arena::region::Stamp;
use crate::error::checkpoint::CheckpointError;

/// Number of bytes of the header's length, which comes first.
const LENGTH: usize = 8;
/// Maximum size of a header, as defined by the format.
const MAX_HEADER: u64 = 100_000_000;

pub(super) fn entries(file: &File, stamp: &Stamp, number: usize) -> Result<Vec<Entry>, CheckpointError> {
    let path = &stamp.path;
    let unreadable =
        |error: std::io::Error| CheckpointError::File { path: path.display().to_string(), reason: error.to_string() };
    let mut length = [0; LENGTH];
    if stamp.len < LENGTH as u64 {
        return Err(CheckpointError::corrupted(path, format!("{} bytes are too few for a header", stamp.len)));
    }
    read_at(file, &mut length, 0).map_err(unreadable)?;
    let header = u64::from_le_bytes(length);
    if header > MAX_HEADER || header > stamp.len - LENGTH as u64 {
        return Err(CheckpointError::corrupted(
            path,
            format!("its header claims {header} bytes, and the file has {} (at most {MAX_HEADER})", stamp.len),
        ));
    }
    let start = LENGTH + header as usize;
    let mut text = vec![0; header as usize];
    read_at(file, &mut text, LENGTH as u64).map_err(unreadable)?;
    let metadata = metadata(&text, stamp.len - start as u64)
        .map_err(|error| CheckpointError::corrupted(path, error.to_string()))?;
    let mut entries: Vec<Entry> = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| Entry {
            renamed: name.clone(),
            name,
            dtype: dtype(info.dtype),
            shape: info.shape.clone(),
            file: number,
            offset: (start + info.data_offsets.0) as u64,
            len: (info.data_offsets.1 - info.data_offsets.0) as u64,
            param: None,
            parts: Vec::new(),
        })
        .collect();
    entries.sort_by(|left, right| (left.offset, &left.name).cmp(&(right.offset, &right.name)));
    Ok(entries)
}

/// Parses a header that is followed by `len` bytes. Like `SafeTensors::read_metadata`, which
/// requires the whole file in memory.
fn metadata(text: &[u8], len: u64) -> Result<Metadata, SafeTensorError> {
    #[derive(serde::Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: Option<HashMap<String, String>>,
        #[serde(flatten)]
        tensors: HashMap<String, TensorInfo>,
    }
    let text = std::str::from_utf8(text).map_err(SafeTensorError::InvalidHeader)?;
    let header: Header = serde_json::from_str(text).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    let mut tensors: Vec<_> = header.tensors.into_iter().collect();
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let metadata = Metadata::new(header.metadata, tensors)?;
    if metadata.data_len() as u64 != len {
        return Err(SafeTensorError::MetadataIncompleteBuffer);
    }
    Ok(metadata)
}

/// Converts an element type. Returns the file's name of a type that burn does not have.
fn dtype(found: Dtype) -> Result<DType, String> {
    Ok(match found {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        other => return Err(format!("{other:?}")),
    })
}

/// Returns `true` if the file looks like a safetensors file: a length, followed by the start of a
/// JSON object.
pub(super) fn is_one(path: &Path, start: &[u8]) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors") || start.get(LENGTH) == Some(&b'{')
}
