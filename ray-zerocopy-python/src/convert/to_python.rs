//! Converts a method's result to Python values: numpy arrays over the result's own memory, and
//! plain values.

use std::fmt;
use std::ops::Range;

use burn::tensor::{BoolStore, DType};
use pyo3::BoundObject;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyList, PyTuple};
use ray_zerocopy::__private::dynamic::Schema;
use ray_zerocopy::__private::dynamic::{ResultTensor, Results};
use ray_zerocopy::__private::guest::lend;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// The result of a method.
pub(crate) enum MethodResult<'py> {
    Value(Bound<'py, PyAny>),
    /// The value of a `Result::Err`.
    Error(Bound<'py, PyAny>),
}

/// Decodes a result. Tensors whose memory overlaps a range of `copied` are copied.
pub(crate) fn read<'py>(
    py: Python<'py>,
    schema: &Schema,
    results: &mut Results,
    copied: &[Range<usize>],
) -> PyResult<MethodResult<'py>> {
    let Schema::Fallible { ok, error } = schema else {
        return any(py, schema, results, copied).map(MethodResult::Value);
    };
    if !matches!(**ok, Schema::Value { .. }) {
        let is_ok: bool = results.value().map_err(wire)?;
        return if is_ok {
            any(py, ok, results, copied).map(MethodResult::Value)
        } else {
            any(py, error, results, copied).map(MethodResult::Error)
        };
    }
    // Serde writes a `Result` as a map with one entry, `Ok` or `Err`.
    let variant = any(py, schema, results, copied)?.cast_into::<PyDict>()?;
    match (variant.get_item("Ok")?, variant.get_item("Err")?) {
        (Some(value), _) => tuple(value, ok).map(MethodResult::Value),
        (None, Some(value)) => tuple(value, error).map(MethodResult::Error),
        (None, None) => Err(PyValueError::new_err("a result is neither a value nor an error")),
    }
}

fn any<'py>(
    py: Python<'py>,
    schema: &Schema,
    results: &mut Results,
    copied: &[Range<usize>],
) -> PyResult<Bound<'py, PyAny>> {
    let mut next = |schema: &Schema| any(py, schema, results, copied);
    match schema {
        Schema::Tensor { .. } => array(py, results.tensor().map_err(wire)?, copied),
        Schema::Optional(inner) => {
            let is_some: bool = results.value().map_err(wire)?;
            if is_some { any(py, inner, results, copied) } else { Ok(py.None().into_bound(py)) }
        }
        Schema::List(inner) => {
            let len: usize = results.value().map_err(wire)?;
            let list = PyList::empty(py);
            for _ in 0..len {
                list.append(any(py, inner, results, copied)?)?;
            }
            Ok(list.into_any())
        }
        Schema::Array(inner, len) => {
            let items = (0..*len).map(|_| next(inner)).collect::<PyResult<Vec<_>>>()?;
            Ok(PyList::new(py, items)?.into_any())
        }
        Schema::Tuple(schemas) => {
            let items = schemas.iter().map(next).collect::<PyResult<Vec<_>>>()?;
            Ok(PyTuple::new(py, items)?.into_any())
        }
        Schema::Map { key, value } => {
            let len: usize = results.value().map_err(wire)?;
            let dict = PyDict::new(py);
            for _ in 0..len {
                dict.set_item(any(py, key, results, copied)?, any(py, value, results, copied)?)?;
            }
            Ok(dict.into_any())
        }
        _ => {
            let bytes = results.raw().map_err(wire)?;
            let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
            let value = Plain(py).deserialize(&mut reader).map_err(wire)?;
            tuple(value, schema)
        }
    }
}

fn wire(error: impl fmt::Display) -> PyErr {
    PyValueError::new_err(format!("the result: {error}"))
}

/// Converts a list to a tuple if the schema requires it: MessagePack encodes Rust tuples as lists.
fn tuple<'py>(value: Bound<'py, PyAny>, schema: &Schema) -> PyResult<Bound<'py, PyAny>> {
    match schema {
        Schema::Value { ty } if ty.starts_with('(') && *ty != "()" => match value.cast::<PyList>() {
            Ok(list) => Ok(list.to_tuple().into_any()),
            Err(_) => Ok(value),
        },
        _ => Ok(value),
    }
}

/// Creates a read-only array over a tensor's memory, which may belong to the pipeline.
pub(crate) fn array<'py>(
    py: Python<'py>,
    tensor: ResultTensor,
    copied: &[Range<usize>],
) -> PyResult<Bound<'py, PyAny>> {
    let ResultTensor { dtype, shape, bytes } = tensor;
    let name = name(dtype).ok_or_else(|| {
        PyValueError::new_err(format!(
            "the result is a tensor of {dtype:?}, which numpy does not support; cast it in the method"
        ))
    })?;
    let numpy = py.import("numpy")?;
    let shape = PyTuple::new(py, shape)?;
    if bytes.is_empty() {
        return numpy.call_method1("empty", (shape, if dtype == DType::BF16 { "float32" } else { name }));
    }
    let start = bytes.as_ptr() as usize;
    let shared = copied.iter().any(|range| range.start < start + bytes.len() && start < range.end);
    let mut array = numpy.call_method1("frombuffer", (lend(py, bytes)?, name))?;
    if dtype == DType::BF16 {
        // The upper half of a float32 is exactly the bfloat16.
        let wide = array.call_method1("astype", ("uint32",))?;
        let shifted = numpy.call_method1("left_shift", (wide, numpy.getattr("uint32")?.call1((16,))?))?;
        array = shifted.call_method1("view", ("float32",))?;
        array.call_method("setflags", (), Some(&[("write", false)].into_py_dict(py)?))?;
    } else if shared {
        array = array.call_method0("copy")?;
        array.call_method("setflags", (), Some(&[("write", false)].into_py_dict(py)?))?;
    }
    array.call_method1("reshape", (shape,))
}

/// Returns numpy's name of an element type. bfloat16, which numpy lacks, is named by its bits,
/// `uint16`.
fn name(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F64 => "float64",
        DType::F32 | DType::Flex32 => "float32",
        DType::F16 => "float16",
        DType::BF16 => "uint16",
        DType::I64 => "int64",
        DType::I32 => "int32",
        DType::I16 => "int16",
        DType::I8 => "int8",
        DType::U64 => "uint64",
        DType::U32 => "uint32",
        DType::U16 => "uint16",
        DType::U8 => "uint8",
        DType::Bool(BoolStore::Native | BoolStore::U8) => "bool",
        _ => return None,
    })
}

/// Deserialises any MessagePack value to a Python object.
#[derive(Clone, Copy)]
struct Plain<'py>(Python<'py>);

macro_rules! scalars {
    ($($name:ident($ty:ty);)*) => {$(
        fn $name<E: serde::de::Error>(self, value: $ty) -> Result<Self::Value, E> {
            object(self.0, value)
        }
    )*};
}

fn object<'py, E, T>(py: Python<'py>, value: T) -> Result<Bound<'py, PyAny>, E>
where
    E: serde::de::Error,
    T: IntoPyObject<'py>,
    PyErr: From<T::Error>,
{
    let made = value.into_pyobject(py).map_err(PyErr::from).map_err(E::custom)?;
    Ok(made.into_any().into_bound())
}

impl<'py, 'de> DeserializeSeed<'de> for Plain<'py> {
    type Value = Bound<'py, PyAny>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'py, 'de> Visitor<'de> for Plain<'py> {
    type Value = Bound<'py, PyAny>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    scalars! {
        visit_bool(bool);
        visit_i64(i64);
        visit_u64(u64);
        visit_f32(f32);
        visit_f64(f64);
        visit_str(&str);
    }

    fn visit_bytes<E: serde::de::Error>(self, value: &[u8]) -> Result<Self::Value, E> {
        Ok(PyBytes::new(self.0, value).into_any())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(self.0.None().into_bound(self.0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let list = PyList::empty(self.0);
        while let Some(item) = items.next_element_seed(self)? {
            list.append(item).map_err(serde::de::Error::custom)?;
        }
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let dict = PyDict::new(self.0);
        while let Some(key) = entries.next_key_seed(self)? {
            let value = entries.next_value_seed(self)?;
            dict.set_item(key, value).map_err(serde::de::Error::custom)?;
        }
        Ok(dict.into_any())
    }
}
