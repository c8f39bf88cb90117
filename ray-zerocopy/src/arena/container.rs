//! The frame of a burnpack container: what stands before the tensors, and where each of them is.
//!
//! burnpack's own writer puts a container together in one go, and its head has to be known then. Ours has the checksums of the
//! tensors, which are taken while the tensors are copied: so the frame is planned first, and written last. burnpack's
//! own reader has the last word on it, when the arena is opened.

use std::collections::BTreeMap;

use burn::tensor::DType;
use burn_pack::{HEADER_SIZE, Header, MAX_METADATA_SIZE, TENSOR_ALIGNMENT, aligned_data_section_start};
use serde::Serialize;

/// A tensor of a container, as its head describes it.
pub(super) struct Descriptor {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub param: Option<u64>,
    pub len: usize,
}

/// Where everything of a container goes.
pub(super) struct Frame {
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

impl Frame {
    /// Lays out a container.
    ///
    /// # Errors
    /// If the head is larger than burnpack reads; gives its size.
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
        // Writing plain data into a vector cannot fail; if it did, the head would be refused by the reader.
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

#[cfg(test)]
mod tests {
    use burn::tensor::{Bytes, DType};

    use super::{Descriptor, Frame};

    /// burnpack's own writer is the judge of the head, byte for byte.
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
        let frame = Frame::plan(&descriptors, &[("key", "value"), ("a", "b")]).unwrap();
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
