//! The Python module that workers import: a thin skin over [`serve`].

use std::ffi::{CStr, CString};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::serve;
use super::serve::Outcome;
use crate::panics;
use crate::ray::sys::main::ModuleInit;

/// The functions and classes that Ray itself runs, which have to be written in Python.
const GLUE: &str = include_str!("glue.py");

/// Answers one order: of a task, or of an actor.
#[pyfunction]
fn _run<'py>(head: &Bound<'py, PyAny>, rest: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let py = head.py();
    let packed = serve::answer(py, head, rest).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    packed.object(py)
}

/// Makes the state of an actor.
#[pyfunction]
fn _begin(head: &Bound<'_, PyAny>, rest: &Bound<'_, PyTuple>) -> PyResult<()> {
    match serve::begin(head.py(), head, rest) {
        Ok(Outcome::Begun) => Ok(()),
        Ok(Outcome::Refused(reason)) => Err(PyRuntimeError::new_err(reason)),
        Err(error) => Err(PyRuntimeError::new_err(error.to_string())),
    }
}

/// What a driver wants to hear: the engine, and `ray.get` in other words.
#[pyclass(frozen, module = "_ray_zerocopy")]
pub(crate) struct Callback(pub(crate) std::sync::Mutex<Option<Done>>);

/// Takes a result of Ray's.
pub(crate) type Done = Box<dyn FnOnce(&Bound<'_, PyAny>) + Send>;

#[pymethods]
impl Callback {
    fn __call__(&self, result: &Bound<'_, PyAny>) {
        let done = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(done) = done {
            // Code of others may run here, and its panic is not Ray's.
            drop(panics::caught(|| done(result)));
        }
    }
}

/// Ray's workers know it by this name.
#[pymodule]
pub(crate) fn _ray_zerocopy(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_run, module)?)?;
    module.add_function(wrap_pyfunction!(_begin, module)?)?;
    let glue = CString::new(GLUE)?;
    module.py().run(&glue, Some(&module.dict()), None)
}

/// The name of the module, and the function that makes it, for a program that has it built in.
pub(crate) const BUILT_IN: (&CStr, ModuleInit) = (_ray_zerocopy::__PYO3_NAME, _ray_zerocopy::__pyo3_init);
