//! Weights in Ray's object store: one object for an arena, read in place by every process of a node.

use std::sync::Arc;

use pyo3::prelude::*;

use super::cluster::{Cluster, store};
use super::sys::buffer::{borrow, lend};
use super::sys::protect::Protected;
use super::{RayError, object::Held};
use crate::Result;
use crate::arena::{Arena, ArenaError};

/// An object of the store, held and protected. It is given back as it was: the protection ends before the hold.
struct Stored {
    _protected: Protected,
    bytes: bytes::Bytes,
}

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The bytes of an object, in place: nobody in this process can write to them as long as they are held.
///
/// # Errors
/// If the object does not lend its bytes.
pub(crate) fn bytes(object: &Bound<'_, PyAny>) -> Result<bytes::Bytes, RayError> {
    let wire = |reason: String| RayError::Wire { what: "the arena".to_owned(), reason };
    let bytes = borrow(object).map_err(|error| wire(error.to_string()))?;
    let protected = Protected::new(&bytes).map_err(|error| wire(format!("its pages cannot be protected: {error}")))?;
    Ok(bytes::Bytes::from_owner(Stored { _protected: protected, bytes }))
}

/// Puts an arena into the object store of this process's node. Gives Ray's reference to it.
///
/// # Errors
/// If the store has no room, and `spill` does not allow what Ray does then: it would move others to a disk, and say nothing. Or if
/// the arena borrows from files.
pub fn put(py: Python<'_>, arena: &Arena, spill: bool) -> Result<Py<PyAny>> {
    let whole = || {
        let path = arena.files().next().map(|path| path.display().to_string()).unwrap_or_default();
        let reason =
            "weights that are borrowed from a file do not go to other machines; open it with `Placement::sealed`"
                .to_owned();
        ArenaError::File { path, reason }
    };
    let arena = arena.in_one()?;
    let container = arena.container().ok_or_else(whole)?.clone();
    let failed = |error: PyErr| RayError::here(&error, "put");
    if !spill {
        let needed = container.len() as u64;
        let (free, capacity) = store(py).map_err(failed)?;
        if needed > free {
            return Err(RayError::StoreFull { needed, free, capacity }.into());
        }
    }
    let put = || {
        let buffer = py.import("pickle")?.getattr("PickleBuffer")?.call1((lend(py, container)?,))?;
        py.import("ray")?.call_method1("put", (buffer,))
    };
    Ok(put().map_err(failed)?.unbind())
}

/// The object that an arena lies in.
pub(crate) fn reference(arena: &Arena) -> Option<&Arc<Held>> {
    arena.origin()?.downcast_ref::<Arc<Held>>()
}

impl Cluster {
    /// Puts an arena into the object store of this node, and opens it there. One that lies there is given back.
    ///
    /// # Errors
    /// If the store has no room, and [`spill`](super::ClusterBuilder::spill) does not allow what Ray does then; or if the
    /// arena borrows from files.
    pub fn put_arena(&self, arena: &Arena) -> Result<Arena> {
        if reference(arena).is_some_and(|held| Arc::ptr_eq(&held.cluster, &self.0)) {
            return Ok(arena.clone());
        }
        let put = |py: Python<'_>| -> Result<(Py<PyAny>, bytes::Bytes)> {
            let reference = put(py, arena, self.0.spill)?;
            let object = py.import("ray").and_then(|ray| ray.call_method1("get", (&reference,)));
            Ok((reference, bytes(&object.map_err(|error| RayError::here(&error, "put"))?)?))
        };
        let (reference, bytes) = Python::attach(put)?;
        let held = Arc::new(Held::new(Arc::clone(&self.0), reference, "an arena"));
        Ok(Arena::from_store(bytes, Some(Arc::new(held)))?)
    }
}
