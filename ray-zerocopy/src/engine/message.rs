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

/// burn's `Bytes` as the owner of a byte slice.
struct Owner(Bytes);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Converts to `bytes::Bytes`, without a copy.
pub(crate) fn shared(bytes: Bytes) -> bytes::Bytes {
    bytes::Bytes::from_owner(Owner(bytes))
}

impl Outgoing {
    /// Returns the message as its receiver in this process gets it.
    pub(crate) fn received(self) -> Incoming {
        Incoming::from_here(self.segments.into_iter().map(shared).collect())
    }
}

impl Outgoing {
    /// Makes the message cheap to clone.
    pub(crate) fn shared(self) -> Self {
        let share = |bytes| Bytes::from_shared(shared(bytes), AllocationProperty::Native);
        Self { segments: self.segments.into_iter().map(share).collect() }
    }
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

/// A received message: heap memory, or memory of the sender that is mapped read-only, which is sealed, or
/// used again for another message when this one is dropped.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// The values, then the tensors.
    pub segments: Vec<bytes::Bytes>,
    /// Whether the sender is this process. Then tensors stay where they are, wherever that is:
    /// tensors that are read once gain nothing from a copy that aligns them.
    pub(crate) is_from_here: bool,
}

impl Incoming {
    /// Creates a message of another process.
    pub(crate) fn new(segments: Vec<bytes::Bytes>) -> Self {
        Self { segments, is_from_here: false }
    }

    /// Creates a message of this process.
    pub(crate) fn from_here(segments: Vec<bytes::Bytes>) -> Self {
        Self { segments, is_from_here: true }
    }

    /// Returns a segment of elements of `element` bytes as burn's `Bytes`: in place if it is
    /// aligned, otherwise copied to aligned memory.
    pub(crate) fn tensor(&self, index: usize, element: usize) -> Option<Bytes> {
        let segment = self.segments.get(index)?;
        let align = if self.is_from_here { element } else { ALIGN };
        if (segment.as_ptr() as usize).is_multiple_of(align.clamp(1, ALIGN)) {
            return Some(Bytes::from_shared(segment.clone(), AllocationProperty::Native));
        }
        Some(Bytes::from_shared(aligned(segment), AllocationProperty::Native))
    }
}
