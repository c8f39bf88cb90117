//! Embedding in a Python process, for extension modules such as the one built by
//! `ray-zerocopy-python`: arenas in the object store of the process's cluster, and Python buffers.
//! Python and Ray are already initialised.

use pyo3::prelude::*;

use crate::arena::arena::Arena;
use crate::arena::store::Container;
use crate::error::Result;

/// Opens an arena in place in the object store. `object` is the result of `ray.get`.
///
/// # Errors
/// If it is not an arena.
pub fn open(object: &Bound<'_, PyAny>) -> Result<Arena> {
    Ok(Arena::from_containers([Container::in_store(super::store::plasma::bytes(object)?, None)])?)
}

/// Returns the LibTorch release that this module was built against, or `None` without the feature
/// `torchscript`.
pub fn libtorch() -> Option<String> {
    #[cfg(feature = "torchscript")]
    return Some(crate::tensor::libtorch::sys::module::version());
    #[cfg(not(feature = "torchscript"))]
    None
}
