//! Weights in Ray's object store: each container of an arena is one object, which every process of a node
//! reads in place.

use std::ops::Range;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::arena::arena::Arena;
use crate::arena::manifest::ArenaId;
use crate::arena::store::Container;
use crate::error::Result;
use crate::error::arena::ArenaError;
use crate::error::ray::RayError;
use crate::ray::api::cluster::{Cluster, store};
use crate::ray::api::object::Held;
use crate::ray::sys::buffer::{borrow, join, lend};
use crate::ray::sys::protect::Protected;

/// An object of the store that is held and write-protected. Fields are dropped in order: the
/// protection ends before the object is released.
struct Stored {
    _protected: Protected,
    bytes: bytes::Bytes,
}

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Padding of one page before and after the arena, so that every page it touches belongs to this
/// object and can be `mprotect`ed.
fn padding() -> usize {
    rustix::param::page_size()
}

/// Returns the bytes of an arena in place, from an object created by [`put`]. The memory is
/// write-protected in this process as long as the bytes are held.
///
/// # Errors
/// If the object was not created by [`put`].
pub(crate) fn bytes(object: &Bound<'_, PyAny>) -> Result<bytes::Bytes, RayError> {
    let wire = |reason: String| RayError::Wire { what: "the arena".to_owned(), reason };
    let parts: Vec<Bound<'_, PyAny>> = object.extract().map_err(|error: PyErr| wire(error.to_string()))?;
    let parts = parts.iter().map(borrow).collect::<PyResult<Vec<_>>>().map_err(|error| wire(error.to_string()))?;
    let pages =
        address_range(&parts).ok_or_else(|| wire("its parts are not adjacent in the object store".to_owned()))?;
    let pieces = parts.get(1..parts.len() - 1).filter(|pieces| !pieces.is_empty());
    let bytes = pieces.and_then(join).ok_or_else(|| {
        wire(format!("it has {} parts, which are not a padding, adjacent pieces and a padding", parts.len()))
    })?;
    let protected = Protected::new(pages).map_err(|error| wire(format!("its pages cannot be protected: {error}")))?;
    Ok(bytes::Bytes::from_owner(Stored { _protected: protected, bytes }))
}

/// Address range from the start of the first part to the end of the last. Returns `None` unless the
/// parts are adjacent, as Ray lays out the buffers of one object.
fn address_range(parts: &[bytes::Bytes]) -> Option<Range<usize>> {
    /// Alignment of each buffer.
    const ALIGNMENT: usize = 64;
    let range = |part: &bytes::Bytes| part.as_ptr() as usize..part.as_ptr() as usize + part.len();
    let follows = |pair: &[bytes::Bytes]| {
        range(&pair[1]).start.checked_sub(range(&pair[0]).end).is_some_and(|between| between < ALIGNMENT)
    };
    let side_by_side = parts.windows(2).all(follows);
    Some(range(parts.first()?).start..range(parts.last()?).end).filter(|_| side_by_side)
}

/// Puts an arena into the object store of this process's node. Returns Ray's reference to it.
///
/// # Errors
/// If the store is full and `spill` is not set: Ray would silently move other objects to disk. Also
/// if the arena borrows from files.
pub fn put(py: Python<'_>, arena: &Arena, spill: bool) -> Result<Py<PyAny>> {
    let whole = containers(&arena.in_one()?)?;
    put_container(py, whole[0].1.bytes(), spill)
}

/// Returns the containers of an arena: its own, then those that it borrows from.
fn containers(arena: &Arena) -> Result<Vec<(ArenaId, Container)>, ArenaError> {
    arena.all_containers().ok_or_else(|| {
        let path = arena.files().next().map(|path| path.display().to_string()).unwrap_or_default();
        let reason =
            "weights that are borrowed from a file cannot be sent to other machines; open it with `Placement::sealed`"
                .to_owned();
        ArenaError::File { path, reason }
    })
}

/// Puts the bytes of a container into the object store of this process's node.
fn put_container(py: Python<'_>, container: &bytes::Bytes, spill: bool) -> Result<Py<PyAny>> {
    put_pieces(py, std::slice::from_ref(container), spill)
}

/// Puts a container, given as the pieces that it consists of, into the object store of this process's node.
///
/// # Errors
/// As [`put`].
pub fn put_pieces(py: Python<'_>, pieces: &[bytes::Bytes], spill: bool) -> Result<Py<PyAny>> {
    let ray_error = |error: PyErr| RayError::here(&error, "put");
    if !spill {
        let len: usize = pieces.iter().map(bytes::Bytes::len).sum();
        let needed = (len + 2 * padding()) as u64;
        let (free, capacity) = store(py).map_err(ray_error)?;
        if needed > free {
            return Err(RayError::StoreFull { needed, free, capacity }.into());
        }
    }
    let put = || {
        let buffer = py.import("pickle")?.getattr("PickleBuffer")?;
        let padding_bytes = PyBytes::new(py, &vec![0; padding()]);
        let mut parts = vec![buffer.call1((&padding_bytes,))?];
        for piece in pieces {
            parts.push(buffer.call1((lend(py, piece.clone())?,))?);
        }
        parts.push(buffer.call1((&padding_bytes,))?);
        py.import("ray")?.call_method1("put", (PyTuple::new(py, parts)?,))
    };
    Ok(put().map_err(ray_error)?.unbind())
}

/// Returns the objects of an arena: its own container, then those that it borrows from. Returns `None` if one
/// of them is not in the store.
pub(crate) fn references(arena: &Arena) -> Option<Vec<Arc<Held>>> {
    arena.all_containers()?.iter().map(|(_, container)| held(container).cloned()).collect()
}

/// Returns the object of a container, or `None` if it is not in the store.
fn held(container: &Container) -> Option<&Arc<Held>> {
    container.origin()?.downcast_ref::<Arc<Held>>()
}

impl Cluster {
    /// Puts an arena into the object store of this node, and opens it there. What is in the store already is
    /// not put there again: the arena itself, or the base of a [variant](Arena::variant).
    ///
    /// # Errors
    /// If the store is full and [`spill`](crate::ray::api::builder::ClusterBuilder::spill) is not
    /// set, or if the arena borrows from files.
    pub fn put_arena(&self, arena: &Arena) -> Result<Arena> {
        let is_here = |held: &Arc<Held>| Arc::ptr_eq(&held.cluster, &self.0);
        if references(arena).is_some_and(|objects| objects.iter().all(is_here)) {
            return Ok(arena.clone());
        }
        self.0.usable()?;
        let mut stored = Vec::new();
        for (id, container) in containers(arena)? {
            stored.push(match self.0.stored.find(id) {
                Some(known) => known,
                None if held(&container).is_some_and(is_here) => container,
                None => self.0.stored.add(id, self.put_container(&container)?),
            });
        }
        Ok(Arena::from_containers(stored)?)
    }

    fn put_container(&self, container: &Container) -> Result<Container> {
        let put = |py: Python<'_>| -> Result<(Py<PyAny>, bytes::Bytes)> {
            let reference = put_container(py, container.bytes(), self.0.spill)?;
            let object = py.import("ray").and_then(|ray| ray.call_method1("get", (&reference,)));
            Ok((reference, bytes(&object.map_err(|error| RayError::here(&error, "put"))?)?))
        };
        let (reference, bytes) = Python::attach(put)?;
        let held = Arc::new(Held::new(Arc::clone(&self.0), reference, "an arena"));
        Ok(container.copied_to_store(bytes, Arc::new(held)))
    }
}

#[cfg(test)]
mod tests {
    use super::address_range;

    #[test]
    fn only_adjacent_parts_are_one_object() {
        let object = bytes::Bytes::from(vec![0_u8; 1000]);
        let start = object.as_ptr() as usize;
        let part = |range: std::ops::Range<usize>| object.slice(range);
        assert_eq!(address_range(&[part(10..100), part(128..500), part(500..900)]), Some(start + 10..start + 900));
        assert_eq!(address_range(&[part(10..100), part(200..500), part(500..900)]), None, "too far away");
        assert_eq!(address_range(&[part(10..100), part(90..500), part(500..900)]), None, "overlap");
        assert_eq!(address_range(&[part(500..900), part(100..500), part(10..100)]), None, "reverse order");
        assert_eq!(address_range(&[]), None);
    }
}
