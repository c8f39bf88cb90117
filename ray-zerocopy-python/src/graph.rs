//! Native classes for traced graphs and TorchScript modules, used by the Python code of the wheel
//! `ray-zerocopy-burn`.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::{AllocationProperty, Bytes, DType, Device, TensorData};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList};
use ray_zerocopy::__private::dynamic::ResultTensor;
use ray_zerocopy::__private::{ForkMutex, guest};
use ray_zerocopy::arena::TensorKind;
use ray_zerocopy::jit::{self, Executable, Model, PortInfo, ReplayError, Runnable, Value, Values};

use crate::arena::{PyArena, PyGpuParts};
use crate::base::base;
use crate::convert::{Borrowing, Expected, Location, Tensor, array, columns, tensor};

/// A graph in this process. It is boxed because Python aligns its objects less strictly than burn's
/// devices require.
#[pyclass(frozen, name = "_Graph", module = "ray_zerocopy._native")]
struct Graph(Box<State>);

struct State {
    opened: Model,
    replay: ForkMutex<Executable>,
    device: String,
    /// Counts of input arrays: those read in place, and those copied.
    traffic: [AtomicU64; 2],
}

fn runtime(error: impl std::fmt::Display) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// Converts an error to a Python exception: `ValueError` for invalid inputs, `RuntimeError` for the
/// rest.
fn call_error(error: ReplayError) -> PyErr {
    match error {
        ReplayError::Input { .. } | ReplayError::Inputs { .. } | ReplayError::Method { .. } => {
            PyValueError::new_err(error.to_string())
        }
        error => runtime(error),
    }
}

impl Graph {
    fn load(opened: Model, device: &str, strict: bool) -> PyResult<Self> {
        let replay = opened.load(device).map_err(runtime)?;
        if strict && let Some(first) = replay.copied().first() {
            let bytes: u64 = replay.copied().iter().map(|copied| copied.bytes).sum();
            return Err(PyRuntimeError::new_err(format!(
                "strict: {} weights ({bytes} bytes) had to be copied on `{device}`, `{}` first",
                replay.copied().len(),
                first.path
            )));
        }
        let traffic = [AtomicU64::new(0), AtomicU64::new(0)];
        Ok(Self(Box::new(State { opened, replay: ForkMutex::new(replay), device: device.to_owned(), traffic })))
    }

    /// Returns the element type and shape of an input. A TorchScript module does not declare them.
    fn port(&self, name: &str) -> Option<PortInfo> {
        match &self.0.opened {
            Model::Graph(graph) => graph.info().inputs().find(|port| port.name == name),
            _ => None,
        }
    }

    /// Converts an input, in place if possible.
    fn input(&self, name: &str, value: &Bound<'_, PyAny>, borrowing: &mut Borrowing) -> PyResult<Value> {
        let port = self.port(name);
        if port.is_none()
            && let Some(number) = number(value)?
        {
            return on_cpu(name, number);
        }
        let expected = port.as_ref().map(|port| Expected { rank: port.shape.len(), kind: port.kind });
        let Tensor { dtype, shape, bytes } = tensor(value, expected, borrowing, &Location::new("graph", name))?;
        let bytes = Bytes::from_shared(bytes, AllocationProperty::Native);
        let mut data = TensorData::try_from_bytes(bytes, shape, dtype).map_err(runtime)?;
        if let Some(port) = port.filter(|port| port.kind == TensorKind::Int && port.element != dtype) {
            // numpy's integers have 64 bits by default.
            data = convert_integers(data, port.element).map_err(|number| {
                PyValueError::new_err(format!("graph(): `{name}` is of {}, which has no {number}", port.dtype))
            })?;
        }
        on_cpu(name, data)
    }
}

fn on_cpu(name: &str, data: TensorData) -> PyResult<Value> {
    Value::from_data(data, &Device::flex())
        .map_err(|error| PyValueError::new_err(format!("graph(): `{name}`: {error}")))
}

/// Converts integers to another type. Returns the first number that it cannot represent as the
/// error.
fn convert_integers(data: TensorData, to: DType) -> Result<TensorData, i64> {
    let bits = to.size() as u32 * 8;
    let (least, most) =
        if to.is_uint() { (0, (1_i128 << bits) - 1) } else { (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1) };
    let unrepresentable = data.iter::<i64>().find(|&number| !(least..=most).contains(&i128::from(number)));
    match unrepresentable {
        Some(number) => Err(number),
        None => Ok(data.convert_dtype(to)),
    }
}

/// Converts a Python number to a tensor of one element, as TorchScript modules accept them.
fn number(value: &Bound<'_, PyAny>) -> PyResult<Option<TensorData>> {
    // `bool` is a subclass of `int`, so it is checked first.
    Ok(Some(if value.is_instance_of::<PyBool>() {
        TensorData::new(vec![value.extract::<bool>()?], [1])
    } else if value.is_instance_of::<PyInt>() {
        TensorData::new(vec![value.extract::<i64>()?], [1])
    } else if value.is_instance_of::<PyFloat>() {
        TensorData::new(vec![value.extract::<f64>()?], [1])
    } else {
        return Ok(None);
    }))
}

fn ports<'py>(py: Python<'py>, ports: impl Iterator<Item = PortInfo>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for port in ports {
        dict.set_item(&port.name, format!("{} [{}]", port.dtype, port.shape.join(", ")))?;
    }
    Ok(dict)
}

#[pymethods]
impl Graph {
    /// Opens a graph or TorchScript file.
    #[staticmethod]
    fn open(py: Python<'_>, path: std::path::PathBuf, device: &str, strict: bool) -> PyResult<Self> {
        py.detach(|| {
            let opened = jit::open(&path, |_| ());
            let opened = opened.map_err(|error| PyRuntimeError::new_err(format!("{}: {error}", path.display())))?;
            Self::load(opened, device, strict)
        })
    }

    /// Loads a graph from the object that `ray.get` returned for it.
    #[staticmethod]
    fn attach(object: &Bound<'_, PyAny>, device: &str, strict: bool) -> PyResult<Self> {
        let arena = guest::open(object).map_err(runtime)?;
        object.py().detach(|| Self::load(Model::from_arena(&arena).map_err(runtime)?, device, strict))
    }

    /// Sets the number of compute threads of this process, unless it has already started them.
    #[staticmethod]
    fn use_threads(py: Python<'_>, threads: usize) {
        py.detach(|| guest::use_threads(threads.max(1)));
    }

    /// Puts the graph with its weights into Ray's object store.
    fn put(&self, py: Python<'_>, spill: bool) -> PyResult<Py<PyAny>> {
        guest::put(py, self.0.opened.arena(), spill).map_err(runtime)
    }

    /// Writes the graph with its weights into a file.
    fn save(&self, py: Python<'_>, path: std::path::PathBuf) -> PyResult<()> {
        py.detach(|| self.0.opened.save(&path)).map_err(runtime)
    }

    /// Returns the metadata of the graph: origin, device, inputs, outputs and methods.
    fn describe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("device", &self.0.device)?;
        dict.set_item("weight_bytes", self.0.opened.arena().weight_bytes())?;
        match &self.0.opened {
            Model::Graph(graph) => {
                dict.set_item("origin", graph.info().origin())?;
                dict.set_item("inputs", ports(py, graph.info().inputs())?)?;
                dict.set_item("outputs", ports(py, graph.info().outputs())?)?;
                dict.set_item("methods", py.None())?;
            }
            Model::Script(script) => {
                dict.set_item("origin", script.origin())?;
                let methods = PyDict::new(py);
                for method in script.methods() {
                    let arguments = PyList::empty(py);
                    for argument in &method.arguments {
                        arguments.append((&argument.name, &argument.ty, argument.is_optional()))?;
                    }
                    methods.set_item(&method.name, arguments)?;
                }
                dict.set_item("methods", methods)?;
            }
            other => return Err(PyTypeError::new_err(format!("{other:?} is not supported by this version"))),
        }
        Ok(dict)
    }

    /// Runs a method on named inputs, and returns named outputs.
    fn run<'py>(
        &self,
        py: Python<'py>,
        method: Option<&str>,
        inputs: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let mut borrowing = Borrowing::new(false);
        let mut values = Values::new();
        for (name, value) in inputs {
            let name: String = name.extract()?;
            let value = self.input(&name, &value, &mut borrowing)?;
            values.insert(&name, value);
        }
        self.0.traffic[0].fetch_add(borrowing.borrowed.0, Ordering::Relaxed);
        self.0.traffic[1].fetch_add(borrowing.copied.0, Ordering::Relaxed);
        let outputs = py.detach(|| {
            let mut replay = self.0.replay.lock().map_err(runtime)?;
            let outputs = match method {
                Some(method) => replay.call(method, values),
                None => replay.run(values),
            };
            let outputs = outputs.map_err(call_error)?;
            let read = |(name, value): (&str, &Value)| Ok((name.to_owned(), value.data().map_err(runtime)?));
            outputs.iter().map(read).collect::<PyResult<Vec<_>>>()
        })?;
        let dict = PyDict::new(py);
        let copied: &[Range<usize>] = &borrowing.writable;
        for (name, data) in outputs {
            dict.set_item(name, array(py, ResultTensor::from(data), copied)?)?;
        }
        Ok(dict)
    }

    /// Returns the number of arrays that were read in place, and of those that were copied.
    fn traffic(&self) -> [u64; 2] {
        [&self.0.traffic[0], &self.0.traffic[1]].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Returns the bytes of weights that could not be borrowed.
    fn copied(&self, py: Python<'_>) -> PyResult<u64> {
        py.detach(|| {
            let replay = self.0.replay.lock().map_err(runtime)?;
            Ok(replay.copied().iter().map(|copied| copied.bytes).sum())
        })
    }
}

/// Fills the native module of the wheel.
///
/// # Errors
/// If Python fails.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("__libtorch__", guest::libtorch())?;
    module.add("_base", base(module.py())?)?;
    module.add("_to_numpy", columns(module.py())?.getattr("to_numpy")?)?;
    module.add_class::<PyArena>()?;
    module.add_class::<PyGpuParts>()?;
    module.add_class::<Graph>()
}
