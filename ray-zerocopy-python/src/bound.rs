//! Binds a pipeline type to Python: the native classes behind those that
//! [`source`](crate::source) generates.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};

use burn::tensor::Device;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use ray_zerocopy::__private::dynamic::{Arguments, Failed, Results, call, make};
use ray_zerocopy::__private::dynamic::{MethodInfo, Schema};
use ray_zerocopy::__private::{ForkMutex, HeldAtFork, guest};
use ray_zerocopy::{Arena, Loaded, Remote, load, share};

use crate::constructor::NamedConstructor;
use crate::convert::{Location, MethodResult, Writer, describe, read};
use crate::source::annotation;

/// A pipeline type and the Python module that exports it.
pub(crate) struct Exported<P> {
    pub(crate) class: &'static str,
    pub(crate) methods: Vec<MethodInfo<P>>,
    pub(crate) constructors: Vec<NamedConstructor<P>>,
    /// The module's namespace, which contains its exception classes.
    pub(crate) names: Py<PyDict>,
}

/// An encoded argument and its offset in the message.
struct EncodedArgument<'a, 'py> {
    start: usize,
    name: &'a str,
    schema: Schema,
    value: Bound<'py, PyAny>,
}

/// A pipeline in this process, callable from Python.
struct BoundPipeline<P> {
    exported: Arc<Exported<P>>,
    state: ForkMutex<State<P>>,
    traffic: Traffic,
}

struct State<P> {
    pipeline: P,
    device: Device,
    /// The arena that it was loaded from.
    arena: Option<Arena>,
    /// Bytes of weights that were copied because they could not be borrowed.
    copied: u64,
    /// Message of the panic that left the pipeline partly modified.
    poisoned_by: Option<String>,
}

/// Counts of arrays passed as arguments, and of their bytes.
#[derive(Default)]
struct Traffic {
    borrowed: [AtomicU64; 2],
    copied: [AtomicU64; 2],
}

impl Traffic {
    fn note(counters: &[AtomicU64; 2], (arrays, bytes): (u64, u64)) {
        counters[0].fetch_add(arrays, Ordering::Relaxed);
        counters[1].fetch_add(bytes, Ordering::Relaxed);
    }
}

impl<P: Remote + Send + 'static> Exported<P> {
    /// Creates an exception of the module.
    fn error(&self, py: Python<'_>, name: &str, arguments: Bound<'_, PyTuple>) -> PyErr {
        let made = self.names.bind(py).as_any().get_item(name).and_then(|class| class.call1(arguments));
        made.map_or_else(|error| error, PyErr::from_value)
    }

    fn panicked(&self, py: Python<'_>, what: &str, message: &str) -> PyErr {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let (host, pid) = (host.trim(), std::process::id());
        match (what, message, pid, host).into_pyobject(py) {
            Ok(arguments) => self.error(py, "PanicError", arguments),
            Err(error) => error,
        }
    }

    /// Creates the error for an argument that serde rejected at offset `at` of the message.
    fn invalid_argument(&self, what: &str, arguments: &[EncodedArgument<'_, '_>], at: usize, reason: &str) -> PyErr {
        match arguments.iter().rev().find(|argument| argument.start <= at) {
            Some(EncodedArgument { name, schema, value, .. }) => {
                let (expected, found) = (annotation(schema, false), describe(value));
                PyTypeError::new_err(format!("{what}(): `{name}` should be `{expected}`, found {found}: {reason}"))
            }
            None => PyTypeError::new_err(format!("{what}(): {reason}")),
        }
    }

    fn bind(self: &Arc<Self>, state: State<P>) -> PyPipeline {
        let traffic = Traffic::default();
        PyPipeline(Box::new(BoundPipeline { exported: Arc::clone(self), state: ForkMutex::new(state), traffic }))
    }
}

impl<P: Remote + Send + 'static> BoundPipeline<P> {
    /// Locks the pipeline. The caller must not hold the GIL: the thread that holds this lock may
    /// need the GIL to proceed.
    fn lock(&self) -> Result<MutexGuard<'_, State<P>>, HeldAtFork> {
        // Panics of the pipeline are caught before they reach this lock, so it is never poisoned.
        self.state.lock()
    }

    fn run(&self, index: usize, arguments: Arguments) -> Result<Result<Results, Failed>, HeldAtFork> {
        let method = &self.exported.methods[index];
        let mut state = self.lock()?;
        if let Some(panic) = &state.poisoned_by {
            let before = format!("an earlier panic left the pipeline partly modified; construct it again: {panic}");
            return Ok(Err(Failed::Panicked(before)));
        }
        let State { pipeline, device, .. } = &mut *state;
        let result = call(method.handler, pipeline, device, arguments);
        if let Err(Failed::Panicked(panic)) = &result {
            let panic = panic.clone();
            state.recover(method.exclusive, panic);
        }
        Ok(result)
    }
}

impl<P: Remote + Send + 'static> State<P> {
    fn load(arena: Arena, device: &str, strict: bool) -> ray_zerocopy::Result<Self> {
        let device = ray_zerocopy::device(device)?;
        let loaded: Loaded<P> = load(&arena, &device)?;
        let loaded = if strict { loaded.strict()? } else { loaded };
        let copied = loaded.copied().iter().map(|copied| copied.bytes).sum();
        Ok(Self { pipeline: loaded.into_inner(), device, arena: Some(arena), copied, poisoned_by: None })
    }

    /// Restores the pipeline after a panic. If it has an arena, it is loaded again, which is cheap.
    fn recover(&mut self, exclusive: bool, panic: String) {
        match &self.arena {
            Some(arena) => match load::<P>(arena, &self.device) {
                Ok(loaded) => self.pipeline = loaded.into_inner(),
                Err(error) => self.poisoned_by = Some(format!("{panic}; it could not be loaded again: {error}")),
            },
            None if exclusive => self.poisoned_by = Some(panic),
            None => {}
        }
    }
}

/// Type-erased [`BoundPipeline`].
trait AnyPipeline: Send + Sync {
    fn call<'py>(&self, index: usize, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>>;
    fn put(&self, py: Python<'_>, spill: bool) -> PyResult<Py<PyAny>>;
    fn traffic(&self) -> [u64; 4];
    fn copied(&self, py: Python<'_>) -> PyResult<u64>;
}

impl<P: Remote + Send + 'static> AnyPipeline for BoundPipeline<P> {
    fn call<'py>(&self, index: usize, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let py = arguments.py();
        let method = &self.exported.methods[index];
        let what = format!("{}.{}", self.exported.class, method.name);
        let mut writer = Writer::new(method.exclusive);
        let mut encoded = Vec::with_capacity(method.parameters.len());
        for (parameter, value) in method.parameters.iter().zip(arguments) {
            let (start, name, schema) = (writer.arguments.position(), parameter.name, parameter.schema.clone());
            writer.put(&parameter.schema, &value, &mut Location::new(&what, parameter.name))?;
            encoded.push(EncodedArgument { start, name, schema, value });
        }
        let Writer { arguments, borrowing } = writer;
        Traffic::note(&self.traffic.borrowed, borrowing.borrowed);
        Traffic::note(&self.traffic.copied, borrowing.copied);
        let outcome = py.detach(|| self.run(index, arguments)).map_err(runtime)?.and_then(|mut results| {
            let writable: &[Range<usize>] = &borrowing.writable;
            read(py, &method.result, &mut results, writable).map_err(|error| Failed::Answer(error.to_string()))
        });
        match outcome {
            Ok(MethodResult::Value(value)) => Ok(value),
            Ok(MethodResult::Error(error)) => {
                let text = format!("{what}() failed: {}", error.str()?);
                Err(self.exported.error(py, "PipelineError", (text, error).into_pyobject(py)?))
            }
            Err(Failed::Panicked(message)) => Err(self.exported.panicked(py, &what, &message)),
            Err(Failed::Argument { at, reason }) => Err(self.exported.invalid_argument(&what, &encoded, at, &reason)),
            Err(Failed::Answer(reason)) => {
                Err(PyRuntimeError::new_err(format!("{what}(): the result could not be encoded: {reason}")))
            }
        }
    }

    fn put(&self, py: Python<'_>, spill: bool) -> PyResult<Py<PyAny>> {
        let arena = py.detach(|| share(&self.lock().map_err(runtime)?.pipeline).map_err(runtime))?;
        guest::put(py, &arena, spill).map_err(runtime)
    }

    fn traffic(&self) -> [u64; 4] {
        let Traffic { borrowed: [arrays, bytes], copied: [copies, copied] } = &self.traffic;
        [arrays, bytes, copies, copied].map(|counter| counter.load(Ordering::Relaxed))
    }

    fn copied(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| Ok(self.lock().map_err(runtime)?.copied))
    }
}

fn runtime(error: impl std::fmt::Display) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// Type-erased [`Exported`].
trait AnyExported: Send + Sync {
    fn build(&self, index: usize, arguments: &Bound<'_, PyTuple>) -> PyResult<PyPipeline>;
    fn load(&self, object: &Bound<'_, PyAny>, device: &str, strict: bool) -> PyResult<PyPipeline>;
}

impl<P: Remote + Send + 'static> AnyExported for Arc<Exported<P>> {
    fn build(&self, index: usize, arguments: &Bound<'_, PyTuple>) -> PyResult<PyPipeline> {
        let py = arguments.py();
        let constructor = &self.constructors[index];
        let what = format!("{}.{}", self.class, constructor.name);
        let mut writer = Writer::new(true);
        let mut encoded = Vec::new();
        for (&(name, ty), value) in constructor.parameters.iter().zip(arguments) {
            let schema = Schema::Value { ty };
            let start = writer.arguments.position();
            writer.put(&schema, &value, &mut Location::new(&what, name))?;
            encoded.push(EncodedArgument { start, name, schema, value });
        }
        match py.detach(|| make(writer.arguments, |reader| (constructor.make)(reader))) {
            Ok(Ok(pipeline)) => {
                let device = Device::flex();
                Ok(self.bind(State { pipeline, device, arena: None, copied: 0, poisoned_by: None }))
            }
            Ok(Err(reason)) => {
                let text = format!("{what}() failed: {reason}");
                Err(self.error(py, "PipelineError", (text, reason).into_pyobject(py)?))
            }
            Err(Failed::Argument { at, reason }) => Err(self.invalid_argument(&what, &encoded, at, &reason)),
            Err(Failed::Panicked(message) | Failed::Answer(message)) => Err(self.panicked(py, &what, &message)),
        }
    }

    fn load(&self, object: &Bound<'_, PyAny>, device: &str, strict: bool) -> PyResult<PyPipeline> {
        let arena = guest::open(object).map_err(runtime)?;
        let state = object.py().detach(|| State::load(arena, device, strict)).map_err(runtime)?;
        Ok(self.bind(state))
    }
}

/// Native half of a pipeline object: the `_native` attribute of the module's classes.
#[pyclass(frozen, name = "_BoundPipeline", module = "ray_zerocopy_python")]
pub(crate) struct PyPipeline(Box<dyn AnyPipeline>);

#[pymethods]
impl PyPipeline {
    /// Calls the method at `index`.
    fn call<'py>(&self, index: usize, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.0.call(index, arguments)
    }

    /// Puts the weights into Ray's object store.
    fn put(&self, py: Python<'_>, spill: bool) -> PyResult<Py<PyAny>> {
        self.0.put(py, spill)
    }

    /// Returns the number of borrowed arrays, their bytes, the number of copied arrays and their
    /// bytes.
    fn traffic(&self) -> [u64; 4] {
        self.0.traffic()
    }

    /// Bytes of weights that could not be borrowed.
    fn copied(&self, py: Python<'_>) -> PyResult<u64> {
        self.0.copied(py)
    }
}

/// Native half of a pipeline class: constructs and loads its instances.
#[pyclass(frozen, name = "_PipelineClass", module = "ray_zerocopy_python")]
pub(crate) struct PipelineClass(Box<dyn AnyExported>);

impl PipelineClass {
    pub(crate) fn new<P: Remote + Send + 'static>(exported: Exported<P>) -> Self {
        Self(Box::new(Arc::new(exported)))
    }
}

#[pymethods]
impl PipelineClass {
    /// Constructs a pipeline with the constructor at `index`.
    fn build(&self, index: usize, arguments: &Bound<'_, PyTuple>) -> PyResult<PyPipeline> {
        self.0.build(index, arguments)
    }

    /// Loads a pipeline from the object that `ray.get` returned for its weights.
    fn load(&self, object: &Bound<'_, PyAny>, device: &str, strict: bool) -> PyResult<PyPipeline> {
        self.0.load(object, device, strict)
    }

    /// Sets the number of compute threads of this process, unless it has already started them.
    fn use_threads(&self, py: Python<'_>, threads: usize) {
        py.detach(|| guest::use_threads(threads.max(1)));
    }
}
