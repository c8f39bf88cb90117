//! Messages between processes: values serialised with serde, and the bytes of tensors as separate
//! segments.
//!
//! A message is a list of segments: the first holds the serialised values, each of the others the
//! bytes of one tensor. Each segment is aligned to 64 bytes in memory, so that a receiver can
//! compute on it in place.

use burn::tensor::{AllocationProperty, Bytes};

use crate::tensor::align::{ALIGN, aligned};

/// A message to be sent.
#[derive(Clone, Default)]
pub struct Outgoing {
    /// The values, then the tensors.
    pub segments: Vec<Bytes>,
}

/// Computes the start of each segment after a header of `header` bytes, and the end of the last
/// one.
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

/// A received message: heap memory, or a sealed memfd of the sender that is mapped read-only.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// The values, then the tensors.
    pub segments: Vec<bytes::Bytes>,
}

impl Incoming {
    /// Returns a segment as burn's `Bytes`: in place if it is aligned to `align`, otherwise copied
    /// to aligned memory.
    pub(crate) fn tensor(&self, index: usize, align: usize) -> Option<Bytes> {
        let segment = self.segments.get(index)?;
        if (segment.as_ptr() as usize).is_multiple_of(align.clamp(1, ALIGN)) {
            return Some(Bytes::from_shared(segment.clone(), AllocationProperty::Native));
        }
        Some(Bytes::from_shared(aligned(segment), AllocationProperty::Native))
    }
}
