//! For modules that a Python process of its own imports, which `ray-zerocopy-python` makes: arenas in the store of the
//! cluster that this process is in, and Python's buffers. Python, and Ray, are there already.

use pyo3::prelude::*;

pub use super::plasma::put;
pub use super::serve::use_threads;
pub use super::sys::buffer::{hold, lend};
use crate::Result;
use crate::arena::Arena;

/// Opens an arena where it lies in the store. `object` is what `ray.get` gives for it.
///
/// # Errors
/// If it is no arena.
pub fn open(object: &Bound<'_, PyAny>) -> Result<Arena> {
    Ok(Arena::from_store(super::plasma::bytes(object)?, None)?)
}

/// The release of LibTorch that this module was built against; none without the feature `torchscript`.
pub fn libtorch() -> Option<String> {
    #[cfg(feature = "torchscript")]
    return Some(crate::torch::version());
    #[cfg(not(feature = "torchscript"))]
    None
}
