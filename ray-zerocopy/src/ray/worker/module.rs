//! The Python module that workers import: a thin layer over [`serve`].

use std::ffi::{CStr, CString};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::serve;
use super::serve::Outcome;
use super::stream;
use crate::panics;
use crate::ray::sys::main::ModuleInit;

/// Functions and classes that Ray itself calls, which have to be written in Python.
const GLUE: &str = include_str!("glue.py");

/// Executes one request of a task or of an actor.
#[pyfunction]
fn _run<'py>(head: &Bound<'py, PyAny>, rest: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    let py = head.py();
    let message = serve::answer(py, head, rest).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    message.object(py)
}

/// Starts a task, or a call of an actor, that returns a stream.
#[pyfunction]
fn _stream(head: &Bound<'_, PyAny>, rest: &Bound<'_, PyTuple>) -> PyResult<stream::Items> {
    stream::start(head.py(), head, rest).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

/// Constructs the state of an actor.
#[pyfunction]
fn _begin(head: &Bound<'_, PyAny>, rest: &Bound<'_, PyTuple>) -> PyResult<()> {
    match serve::construct_actor(head.py(), head, rest) {
        Ok(Outcome::Constructed) => Ok(()),
        Ok(Outcome::Refused(reason)) => Err(PyRuntimeError::new_err(reason)),
        Err(error) => Err(PyRuntimeError::new_err(error.to_string())),
    }
}

/// Completion callback passed to `ObjectRef._on_completed`.
#[pyclass(frozen, module = "_ray_zerocopy")]
pub(crate) struct Callback(pub(crate) crate::os::sync::Mutex<Option<Done>>);

/// Takes a result of Ray.
pub(crate) type Done = Box<dyn FnOnce(&Bound<'_, PyAny>) + Send>;

#[pymethods]
impl Callback {
    fn __call__(&self, result: &Bound<'_, PyAny>) {
        let done = self.0.lock().take();
        if let Some(done) = done {
            // The callback may run user code, whose panic must not reach Ray.
            panics::caught(|| done(result)).ok();
        }
    }
}

/// Workers import the module by this name.
#[pymodule]
pub(crate) fn _ray_zerocopy(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_run, module)?)?;
    module.add_function(wrap_pyfunction!(_begin, module)?)?;
    module.add_function(wrap_pyfunction!(_stream, module)?)?;
    let glue = CString::new(GLUE)?;
    module.py().run(&glue, Some(&module.dict()), None)
}

/// Name and init function of the module, for a program that has it built in.
pub(crate) const BUILT_IN: (&CStr, ModuleInit) = (_ray_zerocopy::__PYO3_NAME, _ray_zerocopy::__pyo3_init);
