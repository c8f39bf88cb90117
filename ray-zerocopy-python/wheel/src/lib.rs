//! Native module of the Python package `ray_zerocopy`; its Python source is in `python/`.

#![deny(unsafe_code)]

#[cfg(feature = "ray")]
use ray_zerocopy_python::__private::{pyo3, register};

#[cfg(feature = "ray")]
#[pyo3::pymodule]
#[pyo3(crate = "::ray_zerocopy_python::__private::pyo3")]
fn _native(module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
    register(module)
}
