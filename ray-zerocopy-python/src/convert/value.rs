//! Plain values of Python as MessagePack, as `serde` on the other side reads it: structs are dicts, variants without data are
//! text, those with data a dict with one entry.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::ValuePath;

/// How deep values may be nested: half of what the reader allows, since a list that holds itself should end soon.
const DEPTH: usize = 128;

/// Appends a value. `bytes` are a list of numbers if `listed`, which is what `Vec<u8>` reads.
pub(super) fn write(
    value: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
    listed: bool,
    place: &mut ValuePath<'_>,
) -> PyResult<()> {
    if place.depth() > DEPTH {
        let place = place.to_string();
        return Err(PyValueError::new_err(format!("{place:.120}… is nested more than {DEPTH} deep")));
    }
    if value.is_none() {
        rmp::encode::write_nil(out).map_err(full)
    } else if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_str().map_err(|error| PyValueError::new_err(format!("{place}: {error}")))?;
        rmp::encode::write_str(out, text).map_err(full)
    } else if let Ok(value) = value.cast::<PyBool>() {
        rmp::encode::write_bool(out, value.is_true()).map_err(full)
    } else if value.is_instance_of::<PyInt>() {
        integer(value, out, place)
    } else if let Ok(value) = value.cast::<PyFloat>() {
        rmp::encode::write_f64(out, value.value()).map_err(full)
    } else if let Ok(list) = value.cast::<PyList>() {
        sequence(list.len(), list.iter(), out, listed, place)
    } else if let Ok(tuple) = value.cast::<PyTuple>() {
        sequence(tuple.len(), tuple.iter(), out, listed, place)
    } else if let Ok(dict) = value.cast::<PyDict>() {
        rmp::encode::write_map_len(out, length(dict.len(), place)?).map_err(full)?;
        dict.iter().try_for_each(|(key, value)| {
            let step = key.repr()?;
            place.inside(step, |place| {
                write(&key, out, listed, place)?;
                write(&value, out, listed, place)
            })
        })
    } else if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() {
        let bytes: Vec<u8> = value.extract()?;
        if !listed {
            return rmp::encode::write_bin(out, &bytes).map_err(full);
        }
        rmp::encode::write_array_len(out, length(bytes.len(), place)?).map_err(full)?;
        bytes.into_iter().try_for_each(|byte| rmp::encode::write_uint(out, byte.into()).map(drop).map_err(full))
    } else {
        other(value, out, listed, place)
    }
}

/// What turns itself into one of the above: arrays of numpy, pandas and pyarrow, their elements, paths.
fn other(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, listed: bool, place: &mut ValuePath<'_>) -> PyResult<()> {
    for method in ["to_pylist", "as_py", "tolist", "__fspath__"] {
        if let Ok(method) = value.getattr(method) {
            let plain = method.call0().map_err(|error| PyTypeError::new_err(format!("{place}: {error}")))?;
            // What gives itself would never end.
            if !plain.is(value) && !plain.get_type().is(value.get_type()) {
                return write(&plain, out, listed, place);
            }
        }
    }
    let found = value.get_type().fully_qualified_name()?;
    Err(PyTypeError::new_err(format!(
        "{place} is a `{found}`, which cannot travel: use None, bool, int, float, str, bytes, list, tuple or dict, or arrays \
         of numpy, pandas and pyarrow"
    )))
}

fn integer(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, place: &ValuePath<'_>) -> PyResult<()> {
    if let Ok(number) = value.extract::<i64>() {
        return rmp::encode::write_sint(out, number).map(drop).map_err(full);
    }
    let number: u64 = value
        .extract()
        .map_err(|_| PyValueError::new_err(format!("{place} is {value}, which does not fit into 64 bits")))?;
    rmp::encode::write_uint(out, number).map(drop).map_err(full)
}

fn sequence<'py>(
    len: usize,
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    out: &mut Vec<u8>,
    listed: bool,
    place: &mut ValuePath<'_>,
) -> PyResult<()> {
    rmp::encode::write_array_len(out, length(len, place)?).map_err(full)?;
    let mut written = 0;
    for item in items {
        place.inside(written, |place| write(&item, out, listed, place))?;
        written += 1;
    }
    match written == len {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!("{place} changed while it was read"))),
    }
}

fn length(len: usize, place: &ValuePath<'_>) -> PyResult<u32> {
    u32::try_from(len).map_err(|_| PyValueError::new_err(format!("{place} has {len} items, and 2^32 is the limit")))
}

fn full(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
