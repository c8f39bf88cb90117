//! The arguments of a call, as the method's schemas say.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyString};
use ray_zerocopy::__private::dynamic::Arguments;
use ray_zerocopy::__private::dynamic::Schema;

use super::tensor::{self, Borrowing, Expected};
use super::{ValuePath, value};

/// Writes arguments.
pub(crate) struct Writer {
    pub(crate) arguments: Arguments,
    pub(crate) borrowing: Borrowing,
}

impl Writer {
    /// `keeps`: the method may keep its arguments, so that what Python may change later is copied.
    pub(crate) fn new(keeps: bool) -> Self {
        Self { arguments: Arguments::default(), borrowing: Borrowing::new(keeps) }
    }

    /// Appends a value.
    pub(crate) fn put(&mut self, schema: &Schema, value: &Bound<'_, PyAny>, place: &mut ValuePath<'_>) -> PyResult<()> {
        match schema {
            Schema::Tensor { rank, kind } => {
                let tensor =
                    tensor::tensor(value, Some(Expected { rank: *rank, kind: *kind }), &mut self.borrowing, place)?;
                self.arguments.tensor(tensor.dtype, tensor.shape, tensor.bytes).map_err(wire)
            }
            Schema::Optional(inner) => {
                let there = !value.is_none();
                self.header(&there)?;
                if there { self.put(inner, value, place) } else { Ok(()) }
            }
            Schema::List(inner) => {
                let items = items(value, None, place)?;
                self.header(&items.len())?;
                self.all(std::iter::repeat(&**inner), &items, place)
            }
            Schema::Array(inner, len) => {
                let items = items(value, Some(*len), place)?;
                self.all(std::iter::repeat(&**inner), &items, place)
            }
            Schema::Tuple(schemas) => {
                let items = items(value, Some(schemas.len()), place)?;
                self.all(schemas.iter(), &items, place)
            }
            Schema::Map { key, value: inner } => {
                let expected = || PyTypeError::new_err(format!("{place} should be a dict, found {}", describe(value)));
                let dict = value.cast::<PyDict>().map_err(|_| expected())?;
                self.header(&dict.len())?;
                dict.iter().try_for_each(|(name, item)| {
                    place.inside(name.repr()?, |place| {
                        self.put(key, &name, place)?;
                        self.put(inner, &item, place)
                    })
                })
            }
            // Who passes a value means that there is one.
            Schema::Fallible { ok, .. } if matches!(**ok, Schema::Value { .. }) => {
                let wrapped = PyDict::new(value.py());
                wrapped.set_item("Ok", value)?;
                self.put(ok, &wrapped, place)
            }
            Schema::Fallible { ok, .. } => {
                self.header(&true)?;
                self.put(ok, value, place)
            }
            Schema::Value { ty } => {
                let mut bytes = Vec::new();
                value::write(value, &mut bytes, ty.contains("Vec<u8>"), place)?;
                self.arguments.raw(&bytes);
                Ok(())
            }
            other => Err(PyTypeError::new_err(format!("{place}: {other:?} is not known to this version"))),
        }
    }

    fn all<'s>(
        &mut self,
        schemas: impl Iterator<Item = &'s Schema>,
        items: &[Bound<'_, PyAny>],
        place: &mut ValuePath<'_>,
    ) -> PyResult<()> {
        schemas
            .zip(items)
            .enumerate()
            .try_for_each(|(index, (schema, item))| place.inside(index, |place| self.put(schema, item, place)))
    }

    fn header<T: serde::Serialize>(&mut self, value: &T) -> PyResult<()> {
        self.arguments.value(value).map_err(wire)
    }
}

fn wire(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// The items of anything that has some, of text excepted.
fn items<'py>(
    value: &Bound<'py, PyAny>,
    len: Option<usize>,
    place: &ValuePath<'_>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let wanted = || len.map_or("a list".to_owned(), |len| format!("a list of {len}"));
    let no_list = value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyDict>();
    let found = if no_list { None } else { value.try_iter().ok() };
    let Some(found) = found else {
        return Err(PyTypeError::new_err(format!("{place} should be {}, found {}", wanted(), describe(value))));
    };
    let items = found.collect::<PyResult<Vec<_>>>()?;
    match len {
        Some(len) if len != items.len() => {
            Err(PyValueError::new_err(format!("{place} should be {}, found {} items", wanted(), items.len())))
        }
        _ => Ok(items),
    }
}

/// What a value is, for an error: its type, and for arrays what is in them.
pub(crate) fn describe(value: &Bound<'_, PyAny>) -> String {
    let name = value.get_type().fully_qualified_name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    let attribute = |name: &str| value.getattr(name).ok().and_then(|found| Some(found.str().ok()?.to_string()));
    match (attribute("dtype"), attribute("shape")) {
        (Some(dtype), Some(shape)) => format!("{name} of {dtype} and shape {shape}"),
        _ => name,
    }
}
