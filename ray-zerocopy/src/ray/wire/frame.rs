//! Messages as Ray transports them: one buffer, and separate buffers for large tensors.
//!
//! Ray writes a small argument into the task itself. A large argument that exports a buffer is
//! written into the object store, once, where the receiver reads it in place.

use burn::tensor::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::frame;
use crate::engine::message::{Incoming, Outgoing};
use crate::error::ray::RayError;
use crate::ray::sys::buffer::{borrow, lend};
use crate::tensor::align::aligned;

/// Maximum size in bytes of tensors inside the message. Ray's own limit for inline arguments is 100
/// KiB.
const INLINE: usize = 64 * 1024;

/// A message encoded for Ray.
pub(crate) struct EncodedMessage {
    head: Vec<u8>,
    separate: Vec<bytes::Bytes>,
}

/// Payload of a message: its values, then the tensors. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Payload(Vec<bytes::Bytes>);

impl Payload {
    /// Returns `true` if the payload is sent inside the message.
    pub(crate) fn is_small(&self) -> bool {
        self.len() <= INLINE
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(bytes::Bytes::len).sum()
    }

    /// Appends another payload. Returns its number of segments.
    pub(crate) fn append(&mut self, other: &Self) -> usize {
        self.0.extend_from_slice(&other.0);
        other.0.len()
    }
}

impl From<Outgoing> for Payload {
    fn from(payload: Outgoing) -> Self {
        Self(payload.segments.into_iter().map(|segment| bytes::Bytes::from_owner(Owner(segment))).collect())
    }
}

/// Owner of burn's bytes.
struct Owner(Bytes);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn wire(error: impl ToString) -> RayError {
    RayError::Wire { what: "a message".to_owned(), reason: error.to_string() }
}

impl EncodedMessage {
    pub(crate) fn new<M: Serialize>(message: &M, payload: Outgoing) -> Result<Self, RayError> {
        Self::with(message, payload.into())
    }

    pub(crate) fn with<M: Serialize>(message: &M, payload: Payload) -> Result<Self, RayError> {
        let (inside, separate) = if payload.is_small() { (payload.0, Vec::new()) } else { (Vec::new(), payload.0) };
        Ok(Self { head: frame::encode_contiguous(message, &slices(&inside)).map_err(wire)?, separate })
    }

    /// Encodes a message of any size into one buffer.
    pub(crate) fn whole<M: Serialize>(message: &M, payload: Outgoing) -> Result<Self, RayError> {
        let head = frame::encode_contiguous(message, &slices(&Payload::from(payload).0)).map_err(wire)?;
        Ok(Self { head, separate: Vec::new() })
    }

    /// Returns the arguments of a call: the message, the objects in `first`, and the separate tensors.
    pub(crate) fn arguments<'py>(
        self,
        py: Python<'py>,
        first: impl IntoIterator<Item = Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let mut arguments = vec![PyBytes::new(py, &self.head).into_any()];
        arguments.extend(first);
        if self.separate.is_empty() {
            return PyTuple::new(py, arguments);
        }
        let buffer = py.import("pickle")?.getattr("PickleBuffer")?;
        for bytes in self.separate {
            arguments.push(buffer.call1((lend(py, bytes)?,))?);
        }
        PyTuple::new(py, arguments)
    }

    /// Returns a single object: `bytes`, or a tuple of `bytes` and the separate tensors.
    pub(crate) fn object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        if self.separate.is_empty() {
            return Ok(PyBytes::new(py, &self.head).into_any());
        }
        Ok(self.arguments(py, None)?.into_any())
    }
}

fn slices(segments: &[bytes::Bytes]) -> Vec<&[u8]> {
    segments.iter().map(|segment| &segment[..]).collect()
}

/// Decodes a message and its separate tensors.
pub(crate) fn read<'py, M: DeserializeOwned>(
    head: &Bound<'py, PyAny>,
    separate: impl IntoIterator<Item = Bound<'py, PyAny>>,
) -> Result<(M, Incoming), RayError> {
    let head = match head.cast::<PyBytes>() {
        Ok(bytes) => aligned(bytes.as_bytes()),
        Err(_) => aligned(&borrow(head).map_err(wire)?),
    };
    let (message, inside) = frame::parse(&head).map_err(wire)?;
    let separate = read_separate(separate)?;
    Ok((message, if separate.segments.is_empty() { inside } else { separate }))
}

/// Borrows the separate tensors of a message.
pub(crate) fn read_separate<'py>(objects: impl IntoIterator<Item = Bound<'py, PyAny>>) -> Result<Incoming, RayError> {
    let segments = objects.into_iter().map(|object| borrow(&object)).collect::<PyResult<Vec<_>>>().map_err(wire)?;
    Ok(Incoming::new(segments))
}
