//! Embeds `base.py`, the Python code that exported modules and the wheel share.

use std::ffi::CString;

use pyo3::prelude::*;

/// Creates the module. It is not added to `sys.modules`, where a second native module of this crate
/// in the same process would replace its state.
pub(crate) fn base(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    let module = PyModule::new(py, "ray_zerocopy_base")?;
    let source = CString::new(include_str!("base.py"))?;
    py.run(&source, Some(&module.dict()), None)?;
    Ok(module)
}
