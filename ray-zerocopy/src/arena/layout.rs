//! Writer and reader of the layout of a burnpack container: its head, and the offsets of its
//! tensors.
//!
//! burnpack's own writer writes a container in one pass, so the head must be known before the
//! tensors are copied. The head of an arena contains the checksums of the tensors, which are
//! computed while they are copied. So the layout is computed first, and the head is written last.
//!
//! burnpack's own reader of memory takes a container as one contiguous slice. Reading the head of a
//! file of 100 GB would need a mapping of 100 GB, which a limit of the process or strict overcommit
//! refuses. The reader here reads the head alone, with the same checks; the error for a truncated
//! head is more precise. Fuzzing and the tests compare the two.

use std::collections::BTreeMap;

use burn::tensor::DType;
use burn_pack::{
    Error, FORMAT_VERSION, HEADER_SIZE, Header, MAX_CBOR_RECURSION_DEPTH, MAX_METADATA_SIZE, MAX_TENSOR_COUNT,
    MAX_TENSOR_SIZE, Scalar, TENSOR_ALIGNMENT, aligned_data_section_start,
};
use serde::{Deserialize, Serialize};

/// A tensor to be written, with the fields of its entry in the head.
pub(super) struct Descriptor {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub param: Option<u64>,
    pub len: usize,
}

/// Head and offsets of a container to be written.
pub(super) struct ContainerLayout {
    /// Header and metadata: the first bytes of the container.
    pub head: Vec<u8>,
    /// The offset of each tensor from the start of the container.
    pub offsets: Vec<u64>,
    /// The size of the container.
    pub len: u64,
}

#[derive(Serialize)]
struct Metadata<'a> {
    tensors: BTreeMap<&'a str, TensorMetadata>,
    metadata: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct TensorMetadata {
    dtype: DType,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
    #[serde(skip_serializing_if = "Option::is_none")]
    param_id: Option<u64>,
}

impl ContainerLayout {
    /// Computes the layout of a container.
    ///
    /// # Errors
    /// If the head is larger than burnpack reads. The error is its size.
    pub(super) fn plan(tensors: &[Descriptor], texts: &[(&str, &str)]) -> Result<Self, usize> {
        let mut end = 0_u64;
        let mut described = BTreeMap::new();
        let mut offsets = Vec::with_capacity(tensors.len());
        for tensor in tensors {
            let start = end.next_multiple_of(TENSOR_ALIGNMENT);
            end = start + tensor.len as u64;
            offsets.push(start);
            let entry = TensorMetadata {
                dtype: tensor.dtype,
                shape: tensor.shape.iter().map(|&dim| dim as u64).collect(),
                data_offsets: (start, end),
                param_id: tensor.param,
            };
            described.insert(tensor.name.as_str(), entry);
        }
        let metadata = Metadata { tensors: described, metadata: texts.iter().copied().collect() };
        let mut head = vec![0; HEADER_SIZE];
        // Serialising plain data into a vector does not fail. If it did, the reader would reject
        // the head.
        drop(ciborium::ser::into_writer(&metadata, &mut head));
        let size = head.len() - HEADER_SIZE;
        let Some(declared) = u32::try_from(size).ok().filter(|&size| size <= MAX_METADATA_SIZE) else {
            return Err(size);
        };
        head[..HEADER_SIZE].copy_from_slice(&Header::new(declared).into_bytes());
        let data = aligned_data_section_start(size) as u64;
        offsets.iter_mut().for_each(|offset| *offset += data);
        Ok(Self { head, offsets, len: data + end })
    }
}

/// The parsed head of a container.
pub(crate) struct Head {
    /// The tensors, by their names.
    pub tensors: BTreeMap<String, Described>,
    pub texts: BTreeMap<String, String>,
}

/// Entry of a tensor in the head, with its offset in the container.
pub(crate) struct Described {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub param: Option<u64>,
    pub offset: u64,
    pub len: u64,
}

impl Head {
    /// Parses the head of a container of `len` bytes. `start` must contain at least the whole head.
    ///
    /// # Errors
    /// If burnpack's reader would reject the container.
    pub(crate) fn read(start: &[u8], len: u64) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Metadata {
            tensors: BTreeMap<String, TensorMetadata>,
            #[serde(default)]
            metadata: BTreeMap<String, String>,
            // Not used, but burnpack rejects a container in which they are invalid.
            #[serde(default, rename = "scalars")]
            _scalars: BTreeMap<String, Scalar>,
        }
        #[derive(Deserialize)]
        struct TensorMetadata {
            dtype: DType,
            shape: Vec<u64>,
            data_offsets: (u64, u64),
            #[serde(default)]
            param_id: Option<u64>,
        }
        let header = header(start, len)?;
        if header.version > FORMAT_VERSION {
            return Err(Error::InvalidVersion);
        }
        let size = header.metadata_size;
        if size > MAX_METADATA_SIZE {
            return Err(Error::ValidationError(format!(
                "Metadata size {size} exceeds maximum allowed size of {MAX_METADATA_SIZE} bytes (potential DoS attack)"
            )));
        }
        let head = HEADER_SIZE + size as usize;
        let text = start.get(HEADER_SIZE..head).ok_or_else(|| truncated(head as u64, len))?;
        let metadata: Metadata = ciborium::de::from_reader_with_recursion_limit(text, MAX_CBOR_RECURSION_DEPTH)
            .map_err(|error| Error::MetadataDeserializationError(error.to_string()))?;
        if metadata.tensors.len() > MAX_TENSOR_COUNT {
            return Err(Error::ValidationError(format!(
                "File contains {} tensors, exceeding maximum of {MAX_TENSOR_COUNT} (potential DoS attack)",
                metadata.tensors.len()
            )));
        }
        let data = aligned_data_section_start(size as usize) as u64;
        let mut tensors = BTreeMap::new();
        let mut needed = 0;
        for (name, TensorMetadata { dtype, shape, data_offsets: (start, end), param_id }) in metadata.tensors {
            let wrong = Error::ValidationError;
            let (Some(start), Some(end)) = (data.checked_add(start), data.checked_add(end)) else {
                return Err(wrong(format!("Tensor '{name}' has corrupted offset data: overflow")));
            };
            let Some(len) = end.checked_sub(start) else {
                return Err(wrong(format!("Tensor '{name}' has corrupted offset data: end {end} < start {start}")));
            };
            if len > MAX_TENSOR_SIZE as u64 {
                return Err(wrong(format!(
                    "Tensor '{name}' size {len} exceeds maximum allowed size of {MAX_TENSOR_SIZE} bytes (potential DoS attack)"
                )));
            }
            // Quantised tensors have their own layout, which `tensor::dtype` checks.
            if !matches!(dtype, DType::QFloat(_)) {
                let elements = shape.iter().try_fold(1_u64, |count, &extent| count.checked_mul(extent));
                let Some(expected) = elements.and_then(|elements| elements.checked_mul(dtype.size() as u64)) else {
                    return Err(wrong(format!(
                        "tensor '{name}' byte length calculation overflows u64 for shape {shape:?} and dtype {dtype:?}"
                    )));
                };
                if len != expected {
                    return Err(wrong(format!(
                        "tensor '{name}' declares {len} bytes but its shape {shape:?} and dtype {dtype:?} need {expected}"
                    )));
                }
            }
            let shape = shape.into_iter().map(usize::try_from).collect::<Result<Vec<_>, _>>().map_err(|_| {
                wrong(format!("Tensor '{name}' has corrupted shape data: a dimension exceeds platform maximum"))
            })?;
            needed = needed.max(end);
            tensors.insert(name, Described { dtype, shape, param: param_id, offset: start, len });
        }
        if len < needed {
            return Err(truncated(needed, len));
        }
        Ok(Self { tensors, texts: metadata.metadata })
    }
}

/// Reads the header of a container of `len` bytes.
pub(super) fn header(start: &[u8], len: u64) -> Result<Header, Error> {
    if len < HEADER_SIZE as u64 {
        return Err(truncated(HEADER_SIZE as u64, len));
    }
    Header::from_bytes(start)
}

/// The error of a container of `len` bytes that needs more.
fn truncated(needed: u64, len: u64) -> Error {
    Error::ValidationError(format!("File truncated: expected at least {needed} bytes, got {len} bytes"))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Bytes, DType};

    use super::ContainerLayout;
    use super::Descriptor;

    /// Compares the container with that of burnpack's own writer, byte for byte.
    #[test]
    fn the_frame_is_what_burnpack_writes() {
        let sizes = [3_usize, 0, 700, 256];
        let descriptors: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(at, &len)| Descriptor {
                name: format!("tensor {at}"),
                dtype: DType::U8,
                shape: vec![len],
                param: (at % 2 == 0).then_some(at as u64),
                len,
            })
            .collect();
        let frame = ContainerLayout::plan(&descriptors, &[("key", "value"), ("a", "b")]).unwrap();
        let mut ours = vec![0; frame.len as usize];
        ours[..frame.head.len()].copy_from_slice(&frame.head);
        for (descriptor, &offset) in descriptors.iter().zip(&frame.offsets) {
            ours[offset as usize..][..descriptor.len].fill(7);
        }
        let tensors = descriptors
            .into_iter()
            .map(|d| burn_pack::Tensor::new(d.name, d.dtype, d.shape, d.param, Bytes::from_bytes_vec(vec![7; d.len])));
        let writer = burn_pack::Writer::new(tensors.collect()).with_metadata("key", "value").with_metadata("a", "b");
        assert!(writer.into_bytes().unwrap()[..] == ours[..]);
    }
}
