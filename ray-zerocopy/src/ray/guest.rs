//! For modules that a Python process of its own imports, which `ray-zerocopy-python` makes: arenas in the store of the
//! cluster that this process is in, and Python's buffers. Python, and Ray, are there already.

use pyo3::prelude::*;

use super::RayError;
use super::cluster::store;
pub use super::serve::use_threads;
pub use super::sys::buffer::{hold, lend};
use crate::Result;
use crate::arena::{Arena, ArenaError};

/// Puts an arena into the object store of this process's node. Gives Ray's reference to it.
///
/// # Errors
/// If the store has no room, and `spill` does not allow what Ray does then; or if the arena borrows from files.
pub fn put(py: Python<'_>, arena: &Arena, spill: bool) -> Result<Py<PyAny>> {
    let whole = || {
        let path = arena.files().next().map(|path| path.display().to_string()).unwrap_or_default();
        let reason =
            "weights that are borrowed from a file do not go to other machines; open it with `Placement::sealed`"
                .to_owned();
        ArenaError::File { path, reason }
    };
    let container = arena.container().ok_or_else(whole)?.clone();
    let ask = |error: PyErr| RayError::here(&error, "put");
    if !spill {
        let needed = container.len() as u64;
        let (free, capacity) = store(py).map_err(ask)?;
        if needed > free {
            return Err(RayError::StoreFull { needed, free, capacity }.into());
        }
    }
    let put = || {
        let buffer = py.import("pickle")?.getattr("PickleBuffer")?.call1((lend(py, container)?,))?;
        py.import("ray")?.call_method1("put", (buffer,))
    };
    Ok(put().map_err(ask)?.unbind())
}

/// Opens an arena where it lies in the store. `object` is what `ray.get` gives for it.
///
/// # Errors
/// If it is no arena.
pub fn open(object: &Bound<'_, PyAny>) -> Result<Arena> {
    Ok(Arena::from_store(super::plasma::bytes(object)?, None)?)
}
