//! Encodes the arguments of a call as the method's schemas require.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyString};
use ray_zerocopy::__private::dynamic::Arguments;
use ray_zerocopy::__private::dynamic::Schema;

use super::tensor::{self, Borrowing, Expected};
use super::{Location, value};

/// Encodes the arguments of one call.
pub(crate) struct Writer {
    pub(crate) arguments: Arguments,
    pub(crate) borrowing: Borrowing,
}

impl Writer {
    /// `keeps` is set if the method may keep its arguments: then arrays that Python could still
    /// write to are copied.
    pub(crate) fn new(keeps: bool) -> Self {
        Self { arguments: Arguments::default(), borrowing: Borrowing::new(keeps) }
    }

    /// Encodes a value by its schema.
    pub(crate) fn put(
        &mut self,
        schema: &Schema,
        value: &Bound<'_, PyAny>,
        location: &mut Location<'_>,
    ) -> PyResult<()> {
        match schema {
            Schema::Tensor { rank, kind } => {
                let tensor =
                    tensor::tensor(value, Some(Expected { rank: *rank, kind: *kind }), &mut self.borrowing, location)?;
                self.arguments.tensor(tensor.dtype, tensor.shape, tensor.bytes).map_err(wire)
            }
            Schema::Optional(inner) => {
                let present = !value.is_none();
                self.header(&present)?;
                if present { self.put(inner, value, location) } else { Ok(()) }
            }
            Schema::List(inner) => {
                let items = items(value, None, location)?;
                self.header(&items.len())?;
                self.put_all(std::iter::repeat(&**inner), &items, location)
            }
            Schema::Array(inner, len) => {
                let items = items(value, Some(*len), location)?;
                self.put_all(std::iter::repeat(&**inner), &items, location)
            }
            Schema::Tuple(schemas) => {
                let items = items(value, Some(schemas.len()), location)?;
                self.put_all(schemas.iter(), &items, location)
            }
            Schema::Map { key, value: inner } => {
                let expected =
                    || PyTypeError::new_err(format!("{location} should be a dict, found {}", describe(value)));
                let dict = value.cast::<PyDict>().map_err(|_| expected())?;
                self.header(&dict.len())?;
                dict.iter().try_for_each(|(name, item)| {
                    location.inside(name.repr()?, |location| {
                        self.put(key, &name, location)?;
                        self.put(inner, &item, location)
                    })
                })
            }
            // An argument of type `Result` is always `Ok`: Python has no way to pass an `Err`.
            Schema::Fallible { ok, .. } if matches!(**ok, Schema::Value { .. }) => {
                let wrapped = PyDict::new(value.py());
                wrapped.set_item("Ok", value)?;
                self.put(ok, &wrapped, location)
            }
            Schema::Fallible { ok, .. } => {
                self.header(&true)?;
                self.put(ok, value, location)
            }
            Schema::Value { ty } => {
                let mut bytes = Vec::new();
                value::write(value, &mut bytes, ty.contains("Vec<u8>"), location)?;
                self.arguments.raw(&bytes);
                Ok(())
            }
            other => Err(PyTypeError::new_err(format!("{location}: {other:?} is not supported by this version"))),
        }
    }

    fn put_all<'s>(
        &mut self,
        schemas: impl Iterator<Item = &'s Schema>,
        items: &[Bound<'_, PyAny>],
        location: &mut Location<'_>,
    ) -> PyResult<()> {
        schemas
            .zip(items)
            .enumerate()
            .try_for_each(|(index, (schema, item))| location.inside(index, |location| self.put(schema, item, location)))
    }

    fn header<T: serde::Serialize>(&mut self, value: &T) -> PyResult<()> {
        self.arguments.value(value).map_err(wire)
    }
}

fn wire(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Collects the items of an iterable. Text, bytes and dicts are not accepted as lists.
fn items<'py>(
    value: &Bound<'py, PyAny>,
    len: Option<usize>,
    location: &Location<'_>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let wanted = || len.map_or("a list".to_owned(), |len| format!("a list of {len}"));
    let is_excluded = value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyDict>();
    let found = if is_excluded { None } else { value.try_iter().ok() };
    let Some(found) = found else {
        return Err(PyTypeError::new_err(format!("{location} should be {}, found {}", wanted(), describe(value))));
    };
    let items = found.collect::<PyResult<Vec<_>>>()?;
    match len {
        Some(len) if len != items.len() => {
            Err(PyValueError::new_err(format!("{location} should be {}, found {} items", wanted(), items.len())))
        }
        _ => Ok(items),
    }
}

/// Describes a value in an error message: its type, and the dtype and shape of an array.
pub(crate) fn describe(value: &Bound<'_, PyAny>) -> String {
    let name = value.get_type().fully_qualified_name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    let attribute = |name: &str| value.getattr(name).ok().and_then(|found| Some(found.str().ok()?.to_string()));
    match (attribute("dtype"), attribute("shape")) {
        (Some(dtype), Some(shape)) => format!("{name} of {dtype} and shape {shape}"),
        _ => name,
    }
}
