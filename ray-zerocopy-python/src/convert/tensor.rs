//! Arrays of Python as tensors: where they are if they can be read there, else copied once.

use std::ffi::CString;

use burn::tensor::{BoolStore, DType};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyTuple};
use ray_zerocopy::__private::guest::hold;
use ray_zerocopy::arena::TensorKind;

use super::ValuePath;
use super::arguments::describe;

/// What became of the arrays of a call.
pub(crate) struct Borrowing {
    keeps: bool,
    /// How many arrays are read in place, and how many bytes these are.
    pub(crate) borrowed: (u64, u64),
    /// How many arrays had to be copied, and how many bytes these are.
    pub(crate) copied: (u64, u64),
    /// What is read in place, and may be written to when the call is over: a result must not be the same memory.
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

/// An array as a buffer.
struct Array<'py> {
    /// Numpy's, or what else lends its memory.
    object: Bound<'py, PyAny>,
    buffer: PyUntypedBuffer,
    /// What the elements are, if the buffer cannot say.
    dtype: Option<DType>,
    /// Whether it was made for this call.
    made: bool,
}

/// What a tensor has to be.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) rank: usize,
    pub(crate) kind: TensorKind,
}

/// Takes an array, or what can be made one. If nothing is expected, it may have any rank and any elements.
pub(crate) fn tensor(
    value: &Bound<'_, PyAny>,
    expected: Option<Expected>,
    borrowing: &mut Borrowing,
    place: &ValuePath<'_>,
) -> PyResult<Tensor> {
    let wrong = || {
        let Some(Expected { rank, kind }) = expected else {
            return format!("{place} should be an array of numbers or of bool, found {}", describe(value));
        };
        let element = match kind {
            TensorKind::Float => "floating-point numbers (float32, float64, float16 or bfloat16)",
            TensorKind::Int => "integers",
            TensorKind::Bool => "bool",
        };
        let s = if rank == 1 { "" } else { "s" };
        format!("{place} should be an array of {element} with {rank} dimension{s}, found {}", describe(value))
    };
    let kind = expected.map(|expected| expected.kind);
    // burn has no tensors without dimensions: one element is a row of one.
    let alone = if expected.is_none_or(|expected| expected.rank == 1) { single(value)? } else { None };
    let mut array =
        array(alone.as_ref().unwrap_or(value), kind, place)?.ok_or_else(|| PyTypeError::new_err(wrong()))?;
    let dtype = array.dtype.or_else(|| dtype_of(&array.buffer)).ok_or_else(|| PyTypeError::new_err(wrong()))?;
    let fits = match kind {
        None => true,
        Some(TensorKind::Float) => dtype.is_float(),
        Some(TensorKind::Bool) => dtype.is_bool(),
        Some(TensorKind::Int) => !dtype.is_float() && !dtype.is_bool(),
    };
    if !fits {
        return Err(PyTypeError::new_err(wrong()));
    }
    if expected.is_some_and(|expected| array.buffer.dimensions() != expected.rank) {
        return Err(PyValueError::new_err(wrong()));
    }
    let aligned = (array.buffer.buf_ptr() as usize).is_multiple_of(dtype.size());
    let native = is_native(&array.buffer);
    let frozen = array.buffer.readonly() || array.made;
    if !array.buffer.is_c_contiguous() || !aligned || !native || (borrowing.keeps && !frozen) {
        array = copy(&array, native)?;
    }
    let shape = array.buffer.shape().to_vec();
    let (len, made, frozen) = (array.buffer.len_bytes() as u64, array.made, array.buffer.readonly());
    let bytes = hold(array.buffer)?;
    if dtype.is_bool() && bytes.iter().any(|&byte| byte > 1) {
        return Err(PyValueError::new_err(format!("{place} has bytes that are neither True nor False")));
    }
    let counted = if made { &mut borrowing.copied } else { &mut borrowing.borrowed };
    *counted = (counted.0 + 1, counted.1 + len);
    if !made && !frozen && !bytes.is_empty() {
        let start = bytes.as_ptr() as usize;
        borrowing.writable.push(start..start + bytes.len());
    }
    Ok(Tensor { dtype, shape, bytes })
}

/// A number, or an array without dimensions (numpy's or torch's), as a row of one element. `None` if it is neither.
fn single<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if value.getattr("ndim").is_ok_and(|ndim| ndim.extract::<usize>().is_ok_and(|ndim| ndim == 0)) {
        return if value.hasattr("reshape")? { value.call_method1("reshape", (1,)).map(Some) } else { Ok(None) };
    }
    let number = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if number { PyList::new(value.py(), [value]).map(|list| Some(list.into_any())) } else { Ok(None) }
}

/// The functions of `columns.py`.
pub(crate) fn columns(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        let code = CString::new(include_str!("columns.py"))?;
        PyModule::from_code(py, &code, c"columns.py", c"ray_zerocopy_columns").map(Bound::unbind)
    })?;
    Ok(module.bind(py))
}

/// A column of pandas or pyarrow, or an array of rows, as what can be read as an array. `None` if it is not a column.
fn column<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let found = columns(value.py())?.call_method1("array", (value,))?;
    Ok(if found.is_none() { None } else { Some(found) })
}

/// A value as an array: `None` if it is none.
fn array<'py>(
    value: &Bound<'py, PyAny>,
    kind: Option<TensorKind>,
    place: &ValuePath<'_>,
) -> PyResult<Option<Array<'py>>> {
    let py = value.py();
    let lend = |object: Bound<'py, PyAny>, dtype, made| {
        PyUntypedBuffer::get(&object).map(|buffer| Array { object, buffer, dtype, made })
    };
    let refused = |reason: String| {
        PyTypeError::new_err(format!("{place}: `{}` cannot be read as an array: {reason}", describe(value)))
    };
    // torch's own conversions refuse it as well, some without saying what to do.
    if value.getattr("requires_grad").is_ok_and(|requires| requires.extract().unwrap_or(false)) {
        return Err(refused("it requires a gradient; pass `x.detach()`".to_owned()));
    }
    // Neither buffers nor numpy's DLPack know these. Their bits are what is wanted.
    if let Some(bits) = bfloat16(value)? {
        return bits_of(&bits).map(Some);
    }
    if let Ok(array) = lend(value.clone(), None, false)
        && array.buffer.format().to_bytes() != b"O"
    {
        return Ok(Some(array));
    }
    if let Some(column) = column(value).map_err(|error| refused(error.value(py).to_string()))? {
        // It may be the column's own memory, which others may write to later.
        return array(&column, kind, place);
    }
    let numpy = py.import("numpy")?;
    // A buffer that does not say how far its elements are from each other, as that of ctypes.
    if let Ok(view) = PyMemoryView::from(value) {
        let array = numpy.call_method1("asarray", (view,)).and_then(|array| lend(array, None, false));
        return Ok(array.ok());
    }
    if value.hasattr("__dlpack__")? {
        match numpy.call_method1("from_dlpack", (value,)).and_then(|array| lend(array, None, false)) {
            Ok(array) => return Ok(Some(array)),
            // What has no DLPack of its own may have another way: pyarrow's bits, for one.
            Err(error) if !value.hasattr("__array__")? || nulls(value) || elsewhere(value) => {
                return Err(refused(if nulls(value) { "it has nulls".to_owned() } else { error.to_string() }));
            }
            Err(_) => {}
        }
    }
    if value.hasattr("__array__")? {
        let array = numpy.call_method1("array", (value,)).map_err(|error| refused(error.to_string()))?;
        return Ok(lend(array, None, true).ok());
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        // Numpy would make integers of 1.5, and truth of everything: the list has to be of the kind itself.
        let found = numpy.call_method1("array", (value,));
        let found =
            found.map_err(|error| PyValueError::new_err(format!("{place} cannot be made an array: {error}")))?;
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
        return lend(found.call_method1("astype", (dtype,))?, None, true).map(Some);
    }
    Ok(None)
}

/// Whether an array of pyarrow has places without a value.
fn nulls(value: &Bound<'_, PyAny>) -> bool {
    value.getattr("null_count").and_then(|count| count.extract::<usize>()).is_ok_and(|count| count > 0)
}

/// Whether the elements are not in the memory of this process, by what DLPack says.
fn elsewhere(value: &Bound<'_, PyAny>) -> bool {
    const CPU: i64 = 1;
    let device = value.call_method0("__dlpack_device__").and_then(|device| device.extract::<(i64, i64)>());
    device.is_ok_and(|(kind, _)| kind != CPU)
}

/// The bits of an array of bfloat16 as 16-bit integers, if it is one: ml_dtypes' on numpy, or torch's.
fn bfloat16<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Ok(dtype) = value.getattr("dtype") else { return Ok(None) };
    match dtype.str()?.to_str()? {
        "bfloat16" => value.call_method1("view", ("uint16",)).map(Some),
        "torch.bfloat16" => {
            let bits = value.py().import("torch")?.getattr("int16")?;
            let bits = value.call_method1("view", (bits,))?;
            // What DLPack refuses, such as elements on a GPU, is refused below with the reason.
            Ok(value.py().import("numpy")?.call_method1("from_dlpack", (bits,)).ok())
        }
        _ => Ok(None),
    }
}

fn bits_of<'py>(bits: &Bound<'py, PyAny>) -> PyResult<Array<'py>> {
    let buffer = PyUntypedBuffer::get(bits)?;
    Ok(Array { object: bits.clone(), buffer, dtype: Some(DType::BF16), made: false })
}

/// A copy in one piece, aligned, in this machine's order of bytes.
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
    Ok(Array { object, buffer, dtype: array.dtype, made: true })
}

/// Whether numbers are in this machine's order of bytes.
fn is_native(buffer: &PyUntypedBuffer) -> bool {
    !matches!(buffer.format().to_bytes().first(), Some(b'>' | b'!')) || buffer.item_size() == 1
}

/// What a buffer's elements are, if they are numbers.
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
