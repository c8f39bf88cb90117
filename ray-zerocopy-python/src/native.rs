//! The Rust half of a pipeline in Python: what the classes of [`source`](crate::source) call.

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
use crate::convert::{Given, ValuePath, Writer, describe, read};
use crate::source::annotation;

/// A type of pipeline, as its module has it.
pub(crate) struct Exported<P> {
    pub(crate) class: &'static str,
    pub(crate) methods: Vec<MethodInfo<P>>,
    pub(crate) constructors: Vec<NamedConstructor<P>>,
    /// The module's names: its exceptions are among them.
    pub(crate) names: Py<PyDict>,
}

/// An argument, and where in the message it begins.
struct Passed<'a, 'py> {
    start: usize,
    name: &'a str,
    schema: Schema,
    value: Bound<'py, PyAny>,
}

/// A pipeline of this process.
struct Host<P> {
    exported: Arc<Exported<P>>,
    state: ForkMutex<State<P>>,
    traffic: Traffic,
}

struct State<P> {
    pipeline: P,
    device: Device,
    /// What it was loaded from.
    arena: Option<Arena>,
    /// What could not be borrowed, in bytes.
    copied: u64,
    /// The panic that left it half-changed.
    broken: Option<String>,
}

/// Arrays that came as arguments, and their bytes.
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
    /// An exception of the module.
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

    /// An error for an argument that serde did not accept.
    fn refused(&self, what: &str, parameters: &[Passed<'_, '_>], at: usize, reason: &str) -> PyErr {
        match parameters.iter().rev().find(|passed| passed.start <= at) {
            Some(Passed { name, schema, value, .. }) => {
                let (expected, found) = (annotation(schema, false), describe(value));
                PyTypeError::new_err(format!("{what}(): `{name}` should be `{expected}`, found {found}: {reason}"))
            }
            None => PyTypeError::new_err(format!("{what}(): {reason}")),
        }
    }

    fn host(self: &Arc<Self>, state: State<P>) -> Native {
        let traffic = Traffic::default();
        Native(Box::new(Host { exported: Arc::clone(self), state: ForkMutex::new(state), traffic }))
    }
}

impl<P: Remote + Send + 'static> Host<P> {
    /// The pipeline, without Python's lock: whoever has it may want that.
    fn lock(&self) -> Result<MutexGuard<'_, State<P>>, HeldAtFork> {
        // A panic of the pipeline is caught inside, so that nothing leaves the state half-written.
        self.state.lock()
    }

    fn run(&self, index: usize, arguments: Arguments) -> Result<Result<Results, Failed>, HeldAtFork> {
        let method = &self.exported.methods[index];
        let mut state = self.lock()?;
        if let Some(panic) = &state.broken {
            let before = format!("the pipeline was left half-changed by an earlier panic, make it anew: {panic}");
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
        Ok(Self { pipeline: loaded.into_inner(), device, arena: Some(arena), copied, broken: None })
    }

    /// After a panic: what has an arena is loaded anew, for next to nothing.
    fn recover(&mut self, exclusive: bool, panic: String) {
        match &self.arena {
            Some(arena) => match load::<P>(arena, &self.device) {
                Ok(loaded) => self.pipeline = loaded.into_inner(),
                Err(error) => self.broken = Some(format!("{panic}; it could not be loaded anew: {error}")),
            },
            None if exclusive => self.broken = Some(panic),
            None => {}
        }
    }
}

/// A pipeline, whatever its type.
trait AnyPipeline: Send + Sync {
    fn call<'py>(&self, index: usize, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>>;
    fn put(&self, py: Python<'_>, spill: bool) -> PyResult<Py<PyAny>>;
    fn traffic(&self) -> [u64; 4];
    fn copied(&self, py: Python<'_>) -> PyResult<u64>;
}

impl<P: Remote + Send + 'static> AnyPipeline for Host<P> {
    fn call<'py>(&self, index: usize, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let py = arguments.py();
        let method = &self.exported.methods[index];
        let what = format!("{}.{}", self.exported.class, method.name);
        let mut writer = Writer::new(method.exclusive);
        let mut passed = Vec::with_capacity(method.parameters.len());
        for (parameter, value) in method.parameters.iter().zip(arguments) {
            let (start, name, schema) = (writer.arguments.position(), parameter.name, parameter.schema.clone());
            writer.put(&parameter.schema, &value, &mut ValuePath::new(&what, parameter.name))?;
            passed.push(Passed { start, name, schema, value });
        }
        let Writer { arguments, borrowing } = writer;
        Traffic::note(&self.traffic.borrowed, borrowing.borrowed);
        Traffic::note(&self.traffic.copied, borrowing.copied);
        let given = py.detach(|| self.run(index, arguments)).map_err(runtime)?.and_then(|mut results| {
            let writable: &[Range<usize>] = &borrowing.writable;
            read(py, &method.result, &mut results, writable).map_err(|error| Failed::Answer(error.to_string()))
        });
        match given {
            Ok(Given::Value(value)) => Ok(value),
            Ok(Given::Error(error)) => {
                let text = format!("{what}() failed: {}", error.str()?);
                Err(self.exported.error(py, "PipelineError", (text, error).into_pyobject(py)?))
            }
            Err(Failed::Panicked(message)) => Err(self.exported.panicked(py, &what, &message)),
            Err(Failed::Argument { at, reason }) => Err(self.exported.refused(&what, &passed, at, &reason)),
            Err(Failed::Answer(reason)) => {
                Err(PyRuntimeError::new_err(format!("{what}(): the result could not travel: {reason}")))
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

/// A type of pipeline, whatever it is.
trait AnyExported: Send + Sync {
    fn build(&self, index: usize, arguments: &Bound<'_, PyTuple>) -> PyResult<Native>;
    fn load(&self, object: &Bound<'_, PyAny>, device: &str, strict: bool) -> PyResult<Native>;
}

impl<P: Remote + Send + 'static> AnyExported for Arc<Exported<P>> {
    fn build(&self, index: usize, arguments: &Bound<'_, PyTuple>) -> PyResult<Native> {
        let py = arguments.py();
        let constructor = &self.constructors[index];
        let what = format!("{}.{}", self.class, constructor.name);
        let mut writer = Writer::new(true);
        let mut passed = Vec::new();
        for (&(name, ty), value) in constructor.parameters.iter().zip(arguments) {
            let schema = Schema::Value { ty };
            let start = writer.arguments.position();
            writer.put(&schema, &value, &mut ValuePath::new(&what, name))?;
            passed.push(Passed { start, name, schema, value });
        }
        match py.detach(|| make(writer.arguments, |reader| (constructor.make)(reader))) {
            Ok(Ok(pipeline)) => {
                let device = Device::flex();
                Ok(self.host(State { pipeline, device, arena: None, copied: 0, broken: None }))
            }
            Ok(Err(reason)) => {
                let text = format!("{what}() failed: {reason}");
                Err(self.error(py, "PipelineError", (text, reason).into_pyobject(py)?))
            }
            Err(Failed::Argument { at, reason }) => Err(self.refused(&what, &passed, at, &reason)),
            Err(Failed::Panicked(message) | Failed::Answer(message)) => Err(self.panicked(py, &what, &message)),
        }
    }

    fn load(&self, object: &Bound<'_, PyAny>, device: &str, strict: bool) -> PyResult<Native> {
        let arena = guest::open(object).map_err(runtime)?;
        let state = object.py().detach(|| State::load(arena, device, strict)).map_err(runtime)?;
        Ok(self.host(state))
    }
}

/// What the module's classes have of a pipeline.
#[pyclass(frozen, name = "_Native", module = "ray_zerocopy_python")]
pub(crate) struct Native(Box<dyn AnyPipeline>);

#[pymethods]
impl Native {
    /// Runs the method of this number.
    fn call<'py>(&self, index: usize, arguments: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.0.call(index, arguments)
    }

    /// Puts the weights into Ray's object store.
    fn put(&self, py: Python<'_>, spill: bool) -> PyResult<Py<PyAny>> {
        self.0.put(py, spill)
    }

    /// Arrays borrowed, their bytes, arrays copied, their bytes.
    fn traffic(&self) -> [u64; 4] {
        self.0.traffic()
    }

    /// Bytes of weights that could not be borrowed.
    fn copied(&self, py: Python<'_>) -> PyResult<u64> {
        self.0.copied(py)
    }
}

/// What the module's classes have of their type.
#[pyclass(frozen, name = "_Kind", module = "ray_zerocopy_python")]
pub(crate) struct Kind(Box<dyn AnyExported>);

impl Kind {
    pub(crate) fn new<P: Remote + Send + 'static>(exported: Exported<P>) -> Self {
        Self(Box::new(Arc::new(exported)))
    }
}

#[pymethods]
impl Kind {
    /// Makes a pipeline with the constructor of this number.
    fn build(&self, index: usize, arguments: &Bound<'_, PyTuple>) -> PyResult<Native> {
        self.0.build(index, arguments)
    }

    /// Borrows a pipeline from what `ray.get` gives for its weights.
    fn load(&self, object: &Bound<'_, PyAny>, device: &str, strict: bool) -> PyResult<Native> {
        self.0.load(object, device, strict)
    }

    /// How many threads this process computes with, if it has not begun to.
    fn use_threads(&self, py: Python<'_>, threads: usize) {
        py.detach(|| guest::use_threads(threads.max(1)));
    }
}
