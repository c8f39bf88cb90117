//! For modules that a Python process of its own imports, which `ray-zerocopy-python` makes: arenas in the store of the
//! cluster that this process is in, and Python's buffers. Python, and Ray, are there already.

use pyo3::prelude::*;

use crate::arena::arena::Arena;
use crate::error::Result;

/// Opens an arena where it lies in the store. `object` is what `ray.get` gives for it.
///
/// # Errors
/// If it is no arena.
pub fn open(object: &Bound<'_, PyAny>) -> Result<Arena> {
    Ok(Arena::from_store(super::store::plasma::bytes(object)?, None)?)
}

/// The release of LibTorch that this module was built against; none without the feature `torchscript`.
pub fn libtorch() -> Option<String> {
    #[cfg(feature = "torchscript")]
    return Some(crate::tensor::libtorch::sys::module::version());
    #[cfg(not(feature = "torchscript"))]
    None
}
