//! Messages as Ray carries them: one piece of bytes, and the tensors that are too large for it beside it.
//!
//! Ray writes a small argument into the task itself, and a large one that lends its bytes into the object store, once,
//! where the receiver reads it in place.

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

/// What goes into the message itself, in bytes. Ray itself draws the line at 100 KiB.
const INLINE: usize = 64 * 1024;

/// A message on its way to Ray.
pub(crate) struct EncodedMessage {
    head: Vec<u8>,
    beside: Vec<bytes::Bytes>,
}

/// What a message carries: its values, then the tensors. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Payload(Vec<bytes::Bytes>);

impl Payload {
    /// Whether it goes into a message itself.
    pub(crate) fn is_small(&self) -> bool {
        self.0.iter().map(bytes::Bytes::len).sum::<usize>() <= INLINE
    }
}

impl From<Outgoing> for Payload {
    fn from(payload: Outgoing) -> Self {
        Self(payload.segments.into_iter().map(|segment| bytes::Bytes::from_owner(Owner(segment))).collect())
    }
}

/// Bytes of burn as an owner.
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

    pub(crate) fn with<M: Serialize>(message: &M, cargo: Payload) -> Result<Self, RayError> {
        let (inside, beside) = if cargo.is_small() { (cargo.0, Vec::new()) } else { (Vec::new(), cargo.0) };
        Ok(Self { head: frame::whole(message, &inside).map_err(wire)?, beside })
    }

    /// Everything in one piece, however large.
    pub(crate) fn whole<M: Serialize>(message: &M, payload: Outgoing) -> Result<Self, RayError> {
        let head = frame::whole(message, &Payload::from(payload).0).map_err(wire)?;
        Ok(Self { head, beside: Vec::new() })
    }

    /// The arguments of a call: the message, `first` if there is one, and what lies beside the message.
    pub(crate) fn arguments<'py>(
        self,
        py: Python<'py>,
        first: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let mut arguments = vec![PyBytes::new(py, &self.head).into_any()];
        arguments.extend(first);
        if self.beside.is_empty() {
            return PyTuple::new(py, arguments);
        }
        let buffer = py.import("pickle")?.getattr("PickleBuffer")?;
        for bytes in self.beside {
            arguments.push(buffer.call1((lend(py, bytes)?,))?);
        }
        PyTuple::new(py, arguments)
    }

    /// One object: `bytes`, or a tuple of `bytes` and what lies beside them.
    pub(crate) fn object(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self.beside.is_empty() {
            true => Ok(PyBytes::new(py, &self.head).into_any()),
            false => Ok(self.arguments(py, None)?.into_any()),
        }
    }
}

/// Reads a message, and what came beside it.
pub(crate) fn read<'py, M: DeserializeOwned>(
    head: &Bound<'py, PyAny>,
    beside: impl IntoIterator<Item = Bound<'py, PyAny>>,
) -> Result<(M, Incoming), RayError> {
    let head = match head.cast::<PyBytes>() {
        Ok(bytes) => aligned(bytes.as_bytes()),
        Err(_) => aligned(&borrow(head).map_err(wire)?),
    };
    let (message, inside) = frame::parse(&head).map_err(wire)?;
    let beside = self::beside(beside)?;
    Ok((message, if beside.segments.is_empty() { inside } else { beside }))
}

/// Reads what came beside a message.
pub(crate) fn beside<'py>(objects: impl IntoIterator<Item = Bound<'py, PyAny>>) -> Result<Incoming, RayError> {
    let segments = objects.into_iter().map(|object| borrow(&object)).collect::<PyResult<Vec<_>>>().map_err(wire)?;
    Ok(Incoming { segments })
}
