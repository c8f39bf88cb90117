//! Native class for arenas of Python objects, used by the Python code of the wheel `ray-zerocopy-burn`.

use std::os::fd::AsRawFd;

use burn::tensor::{BoolStore, DType};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use ray_zerocopy::__private::guest::{self, GpuParts, NoGpuParts, Part, PlacedPart};
use ray_zerocopy::Arena;

/// An arena in this process.
#[pyclass(frozen, name = "_Arena", module = "ray_zerocopy._native")]
pub(crate) struct PyArena(Arena);

/// A tensor: its path, the name of its dtype, its shape and a buffer of its bytes.
type Described<'py> = (String, String, Vec<usize>, Bound<'py, PyAny>);

fn runtime(error: impl std::fmt::Display) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// Parses the name of a dtype.
fn dtype(name: &str) -> PyResult<DType> {
    Ok(match name {
        "F64" => DType::F64,
        "F32" => DType::F32,
        "F16" => DType::F16,
        "BF16" => DType::BF16,
        "I64" => DType::I64,
        "I32" => DType::I32,
        "I16" => DType::I16,
        "I8" => DType::I8,
        "U64" => DType::U64,
        "U32" => DType::U32,
        "U16" => DType::U16,
        "U8" => DType::U8,
        "Bool" => DType::Bool(BoolStore::Native),
        _ => return Err(PyValueError::new_err(format!("`{name}` is not the name of a dtype"))),
    })
}

fn part((path, name, shape, buffer): Described<'_>) -> PyResult<Part> {
    let bytes = guest::hold(PyUntypedBuffer::get(&buffer)?)?;
    Ok(Part { path, dtype: dtype(&name)?, shape, bytes })
}

#[pymethods]
impl PyArena {
    /// Copies tensors and values into sealed memory. The buffers must not be written to meanwhile.
    #[staticmethod]
    fn build(
        py: Python<'_>,
        origin: &str,
        tensors: Vec<Described<'_>>,
        values: Vec<(String, Vec<u8>)>,
        apart_below: usize,
    ) -> PyResult<Self> {
        let parts = tensors.into_iter().map(part).collect::<PyResult<Vec<_>>>()?;
        let build = || guest::arena_of_parts(origin, parts, values, apart_below);
        py.detach(build).map(Self).map_err(runtime)
    }

    /// Puts the arena of tensors and values into Ray's object store, without a copy in this process. Returns Ray's
    /// reference. The buffers must not be written to meanwhile.
    #[staticmethod]
    fn put_parts(
        py: Python<'_>,
        origin: &str,
        tensors: Vec<Described<'_>>,
        values: Vec<(String, Vec<u8>)>,
        apart_below: usize,
        spill: bool,
    ) -> PyResult<Py<PyAny>> {
        let parts = tensors.into_iter().map(part).collect::<PyResult<Vec<_>>>()?;
        let pieces = || guest::pieces_of_parts(origin, parts, values, apart_below);
        let pieces = py.detach(pieces).map_err(runtime)?;
        guest::put_pieces(py, &pieces, spill).map_err(runtime)
    }

    /// Opens the arena of the object that `ray.get` returned for it.
    #[staticmethod]
    fn attach(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        guest::open(object).map(Self).map_err(runtime)
    }

    /// Returns the arena with this id if a process of this user offers it.
    #[staticmethod]
    fn find(py: Python<'_>, id: &str) -> PyResult<Option<Self>> {
        let id =
            guest::parse_id(id).ok_or_else(|| PyValueError::new_err(format!("`{id}` is not the id of an arena")))?;
        Ok(py.detach(|| guest::of_id(id)).map_err(runtime)?.map(Self))
    }

    /// Hands the arena to processes of this user that ask for it, as long as this process has it.
    fn offer(&self, py: Python<'_>) -> PyResult<Self> {
        py.detach(|| guest::offer(&self.0)).map(Self).map_err(runtime)
    }

    /// Puts the arena into Ray's object store.
    fn put(&self, py: Python<'_>, spill: bool) -> PyResult<Py<PyAny>> {
        guest::put(py, &self.0, spill).map_err(runtime)
    }

    /// Compares all bytes with their checksums.
    fn verify(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.verify()).map_err(runtime)
    }

    /// The id of the content, in hexadecimal.
    #[getter]
    fn id(&self) -> String {
        self.0.id().to_hex()
    }

    /// What was shared.
    #[getter]
    fn origin(&self) -> &str {
        self.0.pipeline()
    }

    /// The file descriptor of the sealed memory, which is open as long as this object lives. None in Ray's
    /// object store.
    #[getter]
    fn fd(&self) -> Option<i32> {
        self.0.fd().map(|fd| fd.as_raw_fd())
    }

    /// The address of the container in this process. It is mapped read-only.
    #[getter]
    fn address(&self) -> usize {
        guest::address(&self.0)
    }

    /// The size of the container.
    #[getter]
    fn size(&self) -> u64 {
        self.0.size_bytes()
    }

    /// The size of the tensors in the container, where equal ones count once.
    #[getter]
    fn stored_bytes(&self) -> u64 {
        self.0.stored_bytes()
    }

    /// Returns path, offset and size of each tensor.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let parts = guest::placed_parts(&self.0).map_err(runtime)?;
        PyList::new(py, parts.into_iter().map(|PlacedPart { path, offset, bytes }| (path, offset, bytes)))
    }

    /// Returns a value as a buffer, in place.
    fn value<'py>(&self, py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyAny>> {
        guest::lend(py, guest::value(&self.0, path).map_err(runtime)?)
    }

    /// Returns a report on the processes of this user that map the arena: a text, and a row for each process.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<(String, Vec<Bound<'py, PyDict>>)> {
        let report = py.detach(|| guest::report_all(&self.0)).map_err(runtime)?;
        let row = |process: &ray_zerocopy::report::ProcessReport| {
            let row = PyDict::new(py);
            row.set_item("pid", process.pid)?;
            row.set_item("shared", process.shared)?;
            row.set_item("private", process.private)?;
            row.set_item("pss", process.pss)?;
            Ok(row)
        };
        let rows = report.processes.iter().map(row).collect::<PyResult<Vec<_>>>()?;
        Ok((report.to_string(), rows))
    }

    /// Finds the copy of the tensors of at least `from_size` bytes on a GPU, or uploads it. Returns it, or None and
    /// why each process has to upload the weights. Raises RuntimeError if the GPU has no room.
    fn on_gpu(&self, py: Python<'_>, index: usize, from_size: usize) -> PyResult<(Option<PyGpuParts>, String)> {
        match py.detach(|| GpuParts::open(&self.0, index, from_size)) {
            Ok(parts) => Ok((Some(PyGpuParts(parts)), String::new())),
            Err(NoGpuParts::NotShared(reason)) => Ok((None, reason)),
            Err(NoGpuParts::NoRoom(reason)) => Err(runtime(reason)),
        }
    }

    /// Writes the arena into a file.
    fn save(&self, py: Python<'_>, path: std::path::PathBuf) -> PyResult<()> {
        py.detach(|| self.0.save(&path)).map_err(runtime)
    }
}

/// The copy of an arena's tensors on a GPU. The memory exists as long as this object.
#[pyclass(frozen, name = "_GpuParts", module = "ray_zerocopy._native")]
pub(crate) struct PyGpuParts(GpuParts);

#[pymethods]
impl PyGpuParts {
    /// The address and the size of a tensor, by its position. None if it is not in the copy.
    fn place(&self, at: usize) -> Option<(u64, usize)> {
        self.0.place(at)
    }

    /// The size of the copy, in bytes.
    #[getter]
    fn size(&self) -> u64 {
        self.0.bytes()
    }

    /// Whether this process has uploaded it.
    #[getter]
    fn is_uploaded(&self) -> bool {
        self.0.is_uploaded()
    }
}
