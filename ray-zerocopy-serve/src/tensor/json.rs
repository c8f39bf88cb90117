//! Elements as numbers in JSON: lists, nested or flat, in row-major order.

use std::fmt;

use burn::tensor::{BoolStore, DType, TensorData};
use serde::de::{DeserializeOwned, DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::raw::checked_shape;
use crate::error::{ErrorKind, ServeError};

/// Most levels of nested lists.
const DEPTH: usize = 16;

/// Parses the elements of an input.
///
/// # Errors
/// If an element is not of the type, or their number does not fit the shape.
pub(crate) fn tensor(input: &str, dtype: DType, shape: &[i64], data: &RawValue) -> Result<TensorData, ServeError> {
    let (dims, elements) = checked_shape(input, shape)?;
    macro_rules! of {
        ($($type:ty)*) => { {
            let parsed: Vec<$($type)*> = flat(input, dtype, data)?;
            if parsed.len() != elements {
                return Err(ServeError::invalid(format!(
                    "input `{input}` has {} elements, expected {elements} for the shape {dims:?}", parsed.len()
                )));
            }
            TensorData::new(parsed, dims)
        } };
    }
    Ok(match dtype {
        DType::Bool(_) => of!(bool),
        DType::U8 => of!(u8),
        DType::U16 => of!(u16),
        DType::U32 => of!(u32),
        DType::U64 => of!(u64),
        DType::I8 => of!(i8),
        DType::I16 => of!(i16),
        DType::I32 => of!(i32),
        DType::I64 => of!(i64),
        DType::F64 => of!(f64),
        DType::F32 => of!(f32),
        half => of!(f32).convert_dtype(half),
    })
}

/// Parses nested lists as one list.
fn flat<T: DeserializeOwned>(input: &str, dtype: DType, data: &RawValue) -> Result<Vec<T>, ServeError> {
    let mut elements = Vec::new();
    let mut json = serde_json::Deserializer::from_str(data.get());
    let parsed = Nested { elements: &mut elements, depth: 0 }.deserialize(&mut json);
    parsed.map_err(|error| {
        let name = super::datatype::name(dtype).unwrap_or("number");
        ServeError::invalid(format!("`data` of input `{input}` is not a list of {name}: {error}"))
    })?;
    Ok(elements)
}

/// A list of elements or of lists.
struct Nested<'a, T> {
    elements: &'a mut Vec<T>,
    depth: usize,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Nested<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Nested<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.depth == 0 { "a list" } else { "an element or a list" })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { elements, depth } = self;
        if depth == DEPTH {
            return Err(A::Error::custom("the lists are nested too deeply"));
        }
        while list.next_element_seed(Nested { elements: &mut *elements, depth: depth + 1 })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.element(serde::de::value::BoolDeserializer::new(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.element(serde::de::value::I64Deserializer::new(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.element(serde::de::value::U64Deserializer::new(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.element(serde::de::value::F64Deserializer::new(value))
    }
}

impl<T: DeserializeOwned> Nested<'_, T> {
    fn element<'de, E: Error, D: Deserializer<'de, Error = E>>(self, value: D) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("expected a list"));
        }
        self.elements.push(T::deserialize(value)?);
        Ok(())
    }
}

/// Writes the elements of an output as a flat list.
///
/// # Errors
/// If a number has no form in JSON: not-a-number and infinities.
pub(crate) fn elements(output: &str, data: &TensorData) -> Result<Box<RawValue>, ServeError> {
    fn write<T: Serialize>(output: &str, elements: &[T]) -> Result<Box<RawValue>, ServeError> {
        to_raw_value(elements).map_err(|error| ServeError::failed(format!("output `{output}`: {error}")))
    }
    macro_rules! of {
        ($type:ty) => {
            match data.as_slice::<$type>() {
                Ok(elements) => write(output, elements),
                Err(_) => write(output, &data.iter::<$type>().collect::<Vec<_>>()),
            }
        };
    }
    let is_float = data.dtype().is_float();
    if is_float && data.iter::<f64>().any(|number| !number.is_finite()) {
        let message = format!(
            "output `{output}` has not-a-number or an infinity, which JSON does not have; ask for it as binary data"
        );
        return Err(ServeError::new(ErrorKind::Failed, message));
    }
    match data.dtype() {
        DType::Bool(BoolStore::Native) => of!(bool),
        DType::Bool(_) => write(output, &data.iter::<bool>().collect::<Vec<_>>()),
        DType::U8 => of!(u8),
        DType::U16 => of!(u16),
        DType::U32 => of!(u32),
        DType::U64 => of!(u64),
        DType::I8 => of!(i8),
        DType::I16 => of!(i16),
        DType::I32 => of!(i32),
        DType::I64 => of!(i64),
        DType::F64 => of!(f64),
        _ => of!(f32),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{BoolStore, DType, TensorData};
    use serde_json::value::RawValue;

    use super::{elements, tensor};

    fn parse(dtype: DType, shape: &[i64], json: &str) -> Result<TensorData, String> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        tensor("x", dtype, shape, &raw).map_err(|error| error.to_string())
    }

    #[test]
    fn nested_and_flat_lists_are_the_same_tensor() {
        let nested = parse(DType::F32, &[2, 2], "[[1, 2.5], [-3, 4e1]]").unwrap();
        assert_eq!(nested, parse(DType::F32, &[2, 2], "[1, 2.5, -3, 40]").unwrap());
        assert_eq!(elements("y", &nested).unwrap().get(), "[1.0,2.5,-3.0,40.0]");
        let bools = parse(DType::Bool(BoolStore::Native), &[2], "[true, false]").unwrap();
        assert_eq!(elements("y", &bools).unwrap().get(), "[true,false]");
        let half = parse(DType::F16, &[2], "[1, 0.5]").unwrap();
        assert_eq!((half.dtype(), elements("y", &half).unwrap().get()), (DType::F16, "[1.0,0.5]"));
        assert_eq!(parse(DType::I64, &[0], "[]").unwrap().num_elements(), 0);
    }

    #[test]
    fn wrong_elements_are_refused() {
        let error = |dtype, shape: &[i64], json| parse(dtype, shape, json).unwrap_err();
        assert_eq!(error(DType::F32, &[3], "[1, 2]"), "input `x` has 2 elements, expected 3 for the shape [3]");
        let found = error(DType::I8, &[1], "[300]");
        assert!(found.starts_with("`data` of input `x` is not a list of INT8: invalid value"), "{found}");
        let found = error(DType::I64, &[1], "[1.5]");
        assert!(found.contains("not a list of INT64"), "{found}");
        for json in ["5", "{}", "[null]", "\"text\"", &format!("{}1{}", "[".repeat(40), "]".repeat(40))] {
            assert!(error(DType::F32, &[1], json).contains("not a list of FP32"), "{json}");
        }
    }

    #[test]
    fn numbers_without_a_form_in_json_are_refused() {
        let data = TensorData::new(vec![f32::NAN], [1]);
        assert!(elements("y", &data).unwrap_err().to_string().contains("ask for it as binary data"));
    }
}
