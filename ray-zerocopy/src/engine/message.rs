//! What travels between processes: values through serde, and the bytes of tensors beside them, not in them.
//!
//! A message is a list of segments: the first is the serialised values, each of the others the bytes of a tensor. In
//! memory each segment starts at a multiple of 64 bytes, so that a receiver can compute with them where they are.

use burn::tensor::{AllocationProperty, Bytes};

use crate::tensor::align::{ALIGN, aligned};

/// A message on its way out.
#[derive(Clone, Default)]
pub struct Outgoing {
    /// The values, then the tensors.
    pub segments: Vec<Bytes>,
}

/// Where each segment of some lengths starts behind a header of `header` bytes, and where the last ends.
pub(crate) fn layout(lens: impl Iterator<Item = usize>, header: usize) -> (Vec<usize>, usize) {
    let mut end = header;
    let starts = lens.map(|len| {
        let start = end.next_multiple_of(ALIGN);
        end = start + len;
        start
    });
    let starts = starts.collect();
    (starts, end)
}

/// A message that arrived: heap memory, or a sealed memfd of the sender that is mapped read-only.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// The values, then the tensors.
    pub segments: Vec<bytes::Bytes>,
}

impl Incoming {
    /// A segment as burn takes it: in place if it starts at a multiple of `align`, else copied to where it does.
    pub(crate) fn tensor(&self, index: usize, align: usize) -> Option<Bytes> {
        let segment = self.segments.get(index)?;
        if (segment.as_ptr() as usize).is_multiple_of(align.clamp(1, ALIGN)) {
            return Some(Bytes::from_shared(segment.clone(), AllocationProperty::Native));
        }
        Some(Bytes::from_shared(aligned(segment), AllocationProperty::Native))
    }
}
