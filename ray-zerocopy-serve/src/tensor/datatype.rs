//! The data types of the KServe protocol, and burn's types for them.

use burn::tensor::{BoolStore, DType};

use crate::error::{ErrorKind, ServeError};

/// Types of the protocol, each with its name and burn's type.
const TYPES: [(&str, DType); 13] = [
    ("BOOL", DType::Bool(BoolStore::Native)),
    ("UINT8", DType::U8),
    ("UINT16", DType::U16),
    ("UINT32", DType::U32),
    ("UINT64", DType::U64),
    ("INT8", DType::I8),
    ("INT16", DType::I16),
    ("INT32", DType::I32),
    ("INT64", DType::I64),
    ("FP16", DType::F16),
    ("FP32", DType::F32),
    ("FP64", DType::F64),
    ("BF16", DType::BF16),
];

/// Returns burn's type for a name of the protocol.
///
/// # Errors
/// If there is no such type, or models cannot take it.
pub(crate) fn parse(name: &str, input: &str) -> Result<DType, ServeError> {
    if name == "BYTES" {
        let message = format!("input `{input}` has the datatype BYTES, and models take numbers and booleans only");
        return Err(ServeError::new(ErrorKind::Unsupported, message));
    }
    TYPES.iter().find(|(known, _)| *known == name).map(|(_, dtype)| *dtype).ok_or_else(|| {
        let known: Vec<_> = TYPES.iter().map(|(name, _)| *name).collect();
        ServeError::invalid(format!("input `{input}` has the datatype `{name}`, expected one of {}", known.join(", ")))
    })
}

/// Returns the name of a type in the protocol, or `None` if it has none.
pub(crate) fn name(dtype: DType) -> Option<&'static str> {
    match dtype {
        DType::Bool(_) => Some("BOOL"),
        dtype => TYPES.iter().find(|(_, known)| *known == dtype).map(|(name, _)| *name),
    }
}

/// Returns the name of an output's type.
///
/// # Errors
/// If the protocol does not have it.
pub(crate) fn name_of(dtype: DType, output: &str) -> Result<&'static str, ServeError> {
    let error = || format!("output `{output}` is {dtype:?}, which the protocol does not have");
    name(dtype).ok_or_else(|| ServeError::new(ErrorKind::Unsupported, error()))
}

#[cfg(test)]
mod tests {
    use super::{TYPES, name, parse};

    #[test]
    fn names_and_types_are_inverse() {
        for (text, dtype) in TYPES {
            assert_eq!((parse(text, "x").unwrap(), name(dtype)), (dtype, Some(text)));
        }
        let error = parse("FLOAT", "x").unwrap_err().to_string();
        assert!(error.starts_with("input `x` has the datatype `FLOAT`, expected one of BOOL, UINT8"), "{error}");
        assert!(parse("BYTES", "x").unwrap_err().to_string().contains("numbers and booleans only"));
    }
}
