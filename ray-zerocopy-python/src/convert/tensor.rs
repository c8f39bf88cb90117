//! Converts Python arrays to tensors: in place where possible, otherwise with one copy.

use std::ffi::CString;

use burn::tensor::{BoolStore, DType};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyTuple};
use ray_zerocopy::__private::guest::hold;
use ray_zerocopy::arena::TensorKind;

use super::Location;
use super::from_python::describe;

/// Counts the arrays of a call that were borrowed and copied.
pub(crate) struct Borrowing {
    keeps: bool,
    /// Number of arrays read in place, and their bytes.
    pub(crate) borrowed: (u64, u64),
    /// Number of arrays copied, and their bytes.
    pub(crate) copied: (u64, u64),
    /// Address ranges that are read in place and that Python may write to after the call. A result
    /// must not share this memory.
    pub(crate) writable: Vec<std::ops::Range<usize>>,
}

impl Borrowing {
    pub(crate) fn new(keeps: bool) -> Self {
        Self { keeps, borrowed: (0, 0), copied: (0, 0), writable: Vec::new() }
    }
}

pub(crate) struct Tensor {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: bytes::Bytes,
}

/// An array and its buffer.
struct Array<'py> {
    /// The numpy array or other owner of the memory.
    object: Bound<'py, PyAny>,
    buffer: PyUntypedBuffer,
    /// The element type, if the buffer's format cannot express it.
    dtype: Option<DType>,
    /// Whether the array was allocated for this call.
    is_temporary: bool,
}

/// The rank and kind of elements that a tensor must have.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) rank: usize,
    pub(crate) kind: TensorKind,
}

/// Converts an array, or a value that can be converted to one, to a tensor. Without `expected`, any
/// rank and element type is accepted.
pub(crate) fn tensor(
    value: &Bound<'_, PyAny>,
    expected: Option<Expected>,
    borrowing: &mut Borrowing,
    location: &Location<'_>,
) -> PyResult<Tensor> {
    let mismatch = || {
        let Some(Expected { rank, kind }) = expected else {
            return format!("{location} should be an array of numbers or of bool, found {}", describe(value));
        };
        let element = match kind {
            TensorKind::Float => "floating-point numbers (float32, float64, float16 or bfloat16)",
            TensorKind::Int => "integers",
            TensorKind::Bool => "bool",
        };
        let s = if rank == 1 { "" } else { "s" };
        format!("{location} should be an array of {element} with {rank} dimension{s}, found {}", describe(value))
    };
    let kind = expected.map(|expected| expected.kind);
    // burn has no rank-0 tensors: a scalar becomes a tensor of shape [1].
    let scalar = if expected.is_none_or(|expected| expected.rank == 1) { scalar_as_row(value)? } else { None };
    let mut array =
        array(scalar.as_ref().unwrap_or(value), kind, location)?.ok_or_else(|| PyTypeError::new_err(mismatch()))?;
    let dtype = array.dtype.or_else(|| dtype_of(&array.buffer)).ok_or_else(|| PyTypeError::new_err(mismatch()))?;
    let fits = match kind {
        None => true,
        Some(TensorKind::Float) => dtype.is_float(),
        Some(TensorKind::Bool) => dtype.is_bool(),
        Some(TensorKind::Int) => !dtype.is_float() && !dtype.is_bool(),
    };
    if !fits {
        return Err(PyTypeError::new_err(mismatch()));
    }
    if expected.is_some_and(|expected| array.buffer.dimensions() != expected.rank) {
        return Err(PyValueError::new_err(mismatch()));
    }
    let aligned = (array.buffer.buf_ptr() as usize).is_multiple_of(dtype.size());
    let native = is_native(&array.buffer);
    let frozen = array.buffer.readonly() || array.is_temporary;
    if !array.buffer.is_c_contiguous() || !aligned || !native || (borrowing.keeps && !frozen) {
        array = copy(&array, native)?;
    }
    let shape = array.buffer.shape().to_vec();
    let (len, is_temporary, frozen) = (array.buffer.len_bytes() as u64, array.is_temporary, array.buffer.readonly());
    let bytes = hold(array.buffer)?;
    if dtype.is_bool() && bytes.iter().any(|&byte| byte > 1) {
        return Err(PyValueError::new_err(format!("{location} has bytes that are neither True nor False")));
    }
    let counted = if is_temporary { &mut borrowing.copied } else { &mut borrowing.borrowed };
    *counted = (counted.0 + 1, counted.1 + len);
    if !is_temporary && !frozen && !bytes.is_empty() {
        let start = bytes.as_ptr() as usize;
        borrowing.writable.push(start..start + bytes.len());
    }
    Ok(Tensor { dtype, shape, bytes })
}

/// Converts a number or a 0-dimensional numpy or torch array to one with a single element. Returns
/// `None` for other values.
fn scalar_as_row<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if value.getattr("ndim").is_ok_and(|ndim| ndim.extract::<usize>().is_ok_and(|ndim| ndim == 0)) {
        return if value.hasattr("reshape")? { value.call_method1("reshape", (1,)).map(Some) } else { Ok(None) };
    }
    let number = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if number { PyList::new(value.py(), [value]).map(|list| Some(list.into_any())) } else { Ok(None) }
}

/// Returns the Python module made of `columns.py`.
pub(crate) fn columns(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        let code = CString::new(include_str!("columns.py"))?;
        PyModule::from_code(py, &code, c"columns.py", c"ray_zerocopy_columns").map(Bound::unbind)
    })?;
    Ok(module.bind(py))
}

/// Converts a pandas or pyarrow column, or an array of rows, to an array. Returns `None` if the
/// value is not a column.
fn column<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let found = columns(value.py())?.call_method1("array", (value,))?;
    Ok(if found.is_none() { None } else { Some(found) })
}

/// Views or converts a value as an array. Returns `None` if it is not an array.
fn array<'py>(
    value: &Bound<'py, PyAny>,
    kind: Option<TensorKind>,
    location: &Location<'_>,
) -> PyResult<Option<Array<'py>>> {
    let py = value.py();
    let view = |object: Bound<'py, PyAny>, dtype, is_temporary| {
        PyUntypedBuffer::get(&object).map(|buffer| Array { object, buffer, dtype, is_temporary })
    };
    let unreadable = |reason: String| {
        PyTypeError::new_err(format!("{location}: `{}` cannot be read as an array: {reason}", describe(value)))
    };
    // torch's own conversions reject such a tensor as well, some without saying what to do.
    if value.getattr("requires_grad").is_ok_and(|requires| requires.extract().unwrap_or(false)) {
        return Err(unreadable("it requires a gradient; pass `x.detach()`".to_owned()));
    }
    // Neither the buffer protocol nor numpy's DLPack supports bfloat16, so its bits are passed.
    if let Some(bits) = bfloat16(value)? {
        return bits_of(&bits).map(Some);
    }
    if let Ok(array) = view(value.clone(), None, false)
        && array.buffer.format().to_bytes() != b"O"
    {
        return Ok(Some(array));
    }
    if let Some(column) = column(value).map_err(|error| unreadable(error.value(py).to_string()))? {
        // The result may share the column's memory, which may still be written to.
        return array(&column, kind, location);
    }
    let numpy = py.import("numpy")?;
    // Buffers without strides, such as those of ctypes.
    if let Ok(memory) = PyMemoryView::from(value) {
        let array = numpy.call_method1("asarray", (memory,)).and_then(|array| view(array, None, false));
        return Ok(array.ok());
    }
    if value.hasattr("__dlpack__")? {
        match numpy.call_method1("from_dlpack", (value,)).and_then(|array| view(array, None, false)) {
            Ok(array) => return Ok(Some(array)),
            // An object whose DLPack export fails may still support `__array__`, as pyarrow's
            // bit-packed booleans do.
            Err(error) if !value.hasattr("__array__")? || has_nulls(value) || is_on_device(value) => {
                return Err(unreadable(if has_nulls(value) { "it has nulls".to_owned() } else { error.to_string() }));
            }
            Err(_) => {}
        }
    }
    if value.hasattr("__array__")? {
        let array = numpy.call_method1("array", (value,)).map_err(|error| unreadable(error.to_string()))?;
        return Ok(view(array, None, true).ok());
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        // A cast in numpy would truncate 1.5 to an integer and turn any value into a bool, so the
        // list must already be of the expected kind.
        let found = numpy.call_method1("array", (value,));
        let found =
            found.map_err(|error| PyValueError::new_err(format!("{location} cannot be made an array: {error}")))?;
        let letter: String = found.getattr("dtype")?.getattr("kind")?.extract()?;
        let empty = found.getattr("size")?.extract::<usize>()? == 0;
        let (dtype, fits) = match (kind, letter.as_str()) {
            (Some(TensorKind::Float), letter) => ("float32", ["f", "i", "u"].contains(&letter)),
            (Some(TensorKind::Int), letter) => ("int64", ["i", "u"].contains(&letter)),
            (Some(TensorKind::Bool), letter) => ("bool", letter == "b"),
            (None, "i" | "u") => ("int64", true),
            (None, "b") => ("bool", true),
            (None, letter) => ("float32", letter == "f"),
        };
        if !fits && !empty {
            return Ok(None);
        }
        return view(found.call_method1("astype", (dtype,))?, None, true).map(Some);
    }
    Ok(None)
}

/// Returns whether a pyarrow array contains nulls.
fn has_nulls(value: &Bound<'_, PyAny>) -> bool {
    value.getattr("null_count").and_then(|count| count.extract::<usize>()).is_ok_and(|count| count > 0)
}

/// Returns whether DLPack reports that the elements are not in CPU memory.
fn is_on_device(value: &Bound<'_, PyAny>) -> bool {
    const CPU: i64 = 1;
    let device = value.call_method0("__dlpack_device__").and_then(|device| device.extract::<(i64, i64)>());
    device.is_ok_and(|(kind, _)| kind != CPU)
}

/// Returns the bits of a bfloat16 array of ml_dtypes or torch as 16-bit integers, or `None` for
/// other arrays.
fn bfloat16<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Ok(dtype) = value.getattr("dtype") else { return Ok(None) };
    match dtype.str()?.to_str()? {
        "bfloat16" => value.call_method1("view", ("uint16",)).map(Some),
        "torch.bfloat16" => {
            let bits = value.py().import("torch")?.getattr("int16")?;
            let bits = value.call_method1("view", (bits,))?;
            // A tensor that DLPack rejects, such as one on a GPU, is rejected by the caller, which
            // reports the reason.
            Ok(value.py().import("numpy")?.call_method1("from_dlpack", (bits,)).ok())
        }
        _ => Ok(None),
    }
}

fn bits_of<'py>(bits: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let buffer = PyUntypedBuffer::get(bits)?;
    Ok(Array { object: bits.clone(), buffer, dtype: Some(DType::BF16), is_temporary: false })
}

/// Copies an array to contiguous, aligned memory in native byte order.
fn copy<'py>(array: &Array<'py>, native: bool) -> PyResult<Array<'py>> {
    let numpy = array.object.py().import("numpy")?;
    let keywords = PyDict::new(numpy.py());
    keywords.set_item("order", "C")?;
    keywords.set_item("copy", true)?;
    let object = numpy.call_method1("asarray", (&array.object,))?;
    if !native {
        let dtype = object.getattr("dtype")?.call_method1("newbyteorder", ("=",))?;
        keywords.set_item("dtype", dtype)?;
    }
    let object = numpy.call_method("array", (object,), Some(&keywords))?;
    let buffer = PyUntypedBuffer::get(&object)?;
    Ok(Array { object, buffer, dtype: array.dtype, is_temporary: true })
}

/// Returns whether the elements have native byte order.
fn is_native(buffer: &PyUntypedBuffer) -> bool {
    !matches!(buffer.format().to_bytes().first(), Some(b'>' | b'!')) || buffer.item_size() == 1
}

/// Returns the element type of a buffer, or `None` if its elements are not numbers.
fn dtype_of(buffer: &PyUntypedBuffer) -> Option<DType> {
    let format = buffer.format().to_bytes();
    let letter = match format {
        [letter] | [b'@' | b'=' | b'<' | b'>' | b'!', letter] => letter,
        _ => return None,
    };
    Some(match (letter, buffer.item_size()) {
        (b'?', 1) => DType::Bool(BoolStore::Native),
        (b'e', 2) => DType::F16,
        (b'f', 4) => DType::F32,
        (b'd', 8) => DType::F64,
        (b'b' | b'h' | b'i' | b'l' | b'q' | b'n', size) => match size {
            1 => DType::I8,
            2 => DType::I16,
            4 => DType::I32,
            8 => DType::I64,
            _ => return None,
        },
        (b'B' | b'H' | b'I' | b'L' | b'Q' | b'N', size) => match size {
            1 => DType::U8,
            2 => DType::U16,
            4 => DType::U32,
            8 => DType::U64,
            _ => return None,
        },
        _ => return None,
    })
}
