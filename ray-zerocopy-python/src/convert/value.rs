//! Encodes plain Python values as MessagePack in the form that `serde` reads: structs are dicts,
//! unit variants are strings, and variants with data are dicts with one entry.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::Location;

/// Maximum nesting depth: half of what the reader allows, so that a self-referencing list fails
/// early.
const DEPTH: usize = 128;

/// Encodes a value. With `bytes_as_list`, `bytes` are written as a list of numbers, which is what
/// `Vec<u8>` deserialises.
pub(super) fn write(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    bytes_as_list: bool,
    location: &mut Location<'_>,
) -> PyResult<()> {
    if location.depth() > DEPTH {
        let location = location.to_string();
        return Err(PyValueError::new_err(format!("{location:.120}… is nested more than {DEPTH} deep")));
    }
    if value.is_none() {
        rmp::encode::write_nil(out).map_err(full)
    } else if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str().map_err(|error| PyValueError::new_err(format!("{location}: {error}")))?;
        rmp::encode::write_str(out, text).map_err(full)
    } else if let Ok(value) = value.cast::<PyBool>() {
        rmp::encode::write_bool(out, value.is_true()).map_err(full)
    } else if value.is_instance_of::<PyInt>() {
        integer(value, out, location)
    } else if let Ok(value) = value.cast::<PyFloat>() {
        rmp::encode::write_f64(out, value.value()).map_err(full)
    } else if let Ok(list) = value.cast::<PyList>() {
        sequence(list.len(), list.iter(), out, bytes_as_list, location)
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        sequence(tuple.len(), tuple.iter(), out, bytes_as_list, location)
    } else if let Ok(dict) = value.cast::<PyDict>() {
        rmp::encode::write_map_len(out, length(dict.len(), location)?).map_err(full)?;
        for (key, value) in dict {
            let step = key.repr()?;
            location.inside(step, |location| {
                write(&key, out, bytes_as_list, location)?;
                write(&value, out, bytes_as_list, location)
            })?;
        }
        Ok(())
    } else if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() {
        let bytes: Vec<u8> = value.extract()?;
        if !bytes_as_list {
            return rmp::encode::write_bin(out, &bytes).map_err(full);
        }
        rmp::encode::write_array_len(out, length(bytes.len(), location)?).map_err(full)?;
        for byte in bytes {
            rmp::encode::write_uint(out, byte.into()).map_err(full)?;
        }
        Ok(())
    } else {
        write_convertible(value, out, bytes_as_list, location)
    }
}

/// Encodes an object that converts itself to a plain value: numpy, pandas and pyarrow arrays, their
/// elements, and paths.
fn write_convertible(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    bytes_as_list: bool,
    location: &mut Location<'_>,
) -> PyResult<()> {
    for method in ["to_pylist", "as_py", "tolist", "__fspath__"] {
        if let Ok(method) = value.getattr(method) {
            let plain = method.call0().map_err(|error| PyTypeError::new_err(format!("{location}: {error}")))?;
            // A method that returns an object of the same type would recurse forever.
            if !plain.is(value) && !plain.get_type().is(value.get_type()) {
                return write(&plain, out, bytes_as_list, location);
            }
        }
    }
    let found = value.get_type().fully_qualified_name()?;
    Err(PyTypeError::new_err(format!(
        "{location} is a `{found}`, which cannot be sent: use None, bool, int, float, str, bytes, list, tuple or dict, or arrays \
         of numpy, pandas and pyarrow"
    )))
}

fn integer(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, location: &Location<'_>) -> PyResult<()> {
    if let Ok(number) = value.extract::<i64>() {
        return rmp::encode::write_sint(out, number).map(drop).map_err(full);
    }
    let number: u64 = value
        .extract()
        .map_err(|_| PyValueError::new_err(format!("{location} is {value}, which does not fit into 64 bits")))?;
    rmp::encode::write_uint(out, number).map(drop).map_err(full)
}

fn sequence<'py>(
    len: usize,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    out: &mut Vec<u8>,
    bytes_as_list: bool,
    location: &mut Location<'_>,
) -> PyResult<()> {
    rmp::encode::write_array_len(out, length(len, location)?).map_err(full)?;
    let mut written = 0;
    for item in items {
        location.inside(written, |location| write(&item, out, bytes_as_list, location))?;
        written += 1;
    }
    if written == len { Ok(()) } else { Err(PyValueError::new_err(format!("{location} changed while it was read"))) }
}

fn length(len: usize, location: &Location<'_>) -> PyResult<u32> {
    u32::try_from(len).map_err(|_| PyValueError::new_err(format!("{location} has {len} items, and 2^32 is the limit")))
}

fn full(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
