//! Results of methods as JSON: tensors are nested lists.

use burn::tensor::{DType, TensorData};
use ray_zerocopy::__private::dynamic::{ResultTensor, Results, Schema};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::finite;
use crate::error::{ErrorKind, ServeError};

/// A result that can be written as JSON.
enum Json {
    Tensor(TensorData),
    Value(Box<RawValue>),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
    Null,
}

/// Writes the result of a method, or an item of its stream, as JSON.
///
/// # Errors
/// The error that the method returned. Also if it has not-a-number or infinities, which JSON does not have.
pub(super) fn json(method: &str, schema: &Schema, mut results: Results) -> Result<String, ServeError> {
    let failed =
        |reason: String| ServeError::failed(format!("the result of `{method}` cannot be written as JSON: {reason}"));
    let value = match schema {
        Schema::Fallible { ok, error } if matches!(**ok, Schema::Value { .. }) => {
            // Serde writes a `Result` as a map with one entry, `Ok` or `Err`.
            let either = value(&mut results).map_err(failed)?;
            let mut either: std::collections::HashMap<String, Box<RawValue>> =
                serde_json::from_str(either.get()).map_err(|error| failed(error.to_string()))?;
            match (either.remove("Ok"), either.remove("Err")) {
                (Some(value), _) => Json::Value(value),
                (None, Some(error)) => return Err(returned(&error)),
                (None, None) => return Err(failed(format!("it is neither a value nor an error ({error:?})"))),
            }
        }
        Schema::Fallible { ok, .. } => {
            if results.value::<bool>().map_err(|error| failed(error.to_string()))? {
                read(ok, &mut results).map_err(failed)?
            } else {
                return Err(returned(&value(&mut results).map_err(failed)?));
            }
        }
        schema => read(schema, &mut results).map_err(failed)?,
    };
    serde_json::to_string(&value).map_err(|error| failed(error.to_string()))
}

/// The error that a method has returned. One that is text is sent as it is.
fn returned(error: &RawValue) -> ServeError {
    let text = serde_json::from_str::<String>(error.get()).unwrap_or_else(|_| error.get().to_owned());
    ServeError::new(ErrorKind::Method, text)
}

fn read(schema: &Schema, results: &mut Results) -> Result<Json, String> {
    let wire = |error: ray_zerocopy::__private::dynamic::WireError| error.to_string();
    Ok(match schema {
        Schema::Tensor { .. } => {
            let ResultTensor { dtype, shape, bytes } = results.tensor().map_err(wire)?;
            let data = TensorData::from_bytes_vec(bytes.to_vec(), shape, dtype);
            if dtype.is_float() && data.iter::<f64>().any(|number| !number.is_finite()) {
                return Err("a tensor has not-a-number or an infinity, which JSON does not have".to_owned());
            }
            Json::Tensor(data)
        }
        Schema::Optional(inner) => {
            if results.value::<bool>().map_err(wire)? {
                read(inner, results)?
            } else {
                Json::Null
            }
        }
        Schema::List(inner) => {
            let len: usize = results.value().map_err(wire)?;
            Json::List((0..len).map(|_| read(inner, results)).collect::<Result<_, _>>()?)
        }
        Schema::Array(inner, len) => Json::List((0..*len).map(|_| read(inner, results)).collect::<Result<_, _>>()?),
        Schema::Tuple(schemas) => {
            Json::List(schemas.iter().map(|schema| read(schema, results)).collect::<Result<_, _>>()?)
        }
        Schema::Map { value: schema, .. } => {
            let len: usize = results.value().map_err(wire)?;
            let entry = |_| {
                let key = value(results)?;
                let key = serde_json::from_str::<String>(key.get()).unwrap_or_else(|_| key.get().to_owned());
                Ok((key, read(schema, results)?))
            };
            Json::Object((0..len).map(entry).collect::<Result<_, String>>()?)
        }
        Schema::Value { .. } => Json::Value(value(results)?),
        other => return Err(format!("{other:?} is not supported over HTTP")),
    })
}

/// The next value as JSON.
fn value(results: &mut Results) -> Result<Box<RawValue>, String> {
    let bytes = results.raw().map_err(|error| error.to_string())?;
    finite::check(bytes)?;
    let mut json = Vec::new();
    let mut from = rmp_serde::Deserializer::from_read_ref(bytes);
    serde_transcode::transcode(&mut from, &mut serde_json::Serializer::new(&mut json))
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8(json).map_err(|error| error.to_string())?;
    RawValue::from_string(text).map_err(|error| error.to_string())
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Tensor(data) => match data.dtype() {
                DType::Bool(_) => nested(&data.iter::<bool>().collect::<Vec<_>>(), data.shape(), serializer),
                DType::F64 => nested(&data.iter::<f64>().collect::<Vec<_>>(), data.shape(), serializer),
                DType::U64 => nested(&data.iter::<u64>().collect::<Vec<_>>(), data.shape(), serializer),
                dtype if dtype.is_float() => nested(&data.iter::<f32>().collect::<Vec<_>>(), data.shape(), serializer),
                _ => nested(&data.iter::<i64>().collect::<Vec<_>>(), data.shape(), serializer),
            },
            Self::Value(value) => value.serialize(serializer),
            Self::List(items) => items.serialize(serializer),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Self::Null => serializer.serialize_unit(),
        }
    }
}

/// Writes elements as lists that are nested as deep as the shape is long.
fn nested<T: Serialize, S: Serializer>(elements: &[T], shape: &[usize], serializer: S) -> Result<S::Ok, S::Error> {
    struct Part<'a, T>(&'a [T], &'a [usize]);

    impl<T: Serialize> Serialize for Part<'_, T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            nested(self.0, self.1, serializer)
        }
    }

    match shape {
        [] => match elements {
            [element] => element.serialize(serializer),
            _ => elements.serialize(serializer),
        },
        [_] => elements.serialize(serializer),
        [rows, rest @ ..] => {
            let len = rest.iter().product::<usize>();
            let mut list = serializer.serialize_seq(Some(*rows))?;
            for row in 0..*rows {
                list.serialize_element(&Part(&elements[row * len..(row + 1) * len], rest))?;
            }
            list.end()
        }
    }
}
