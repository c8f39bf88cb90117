//! Serialisation of values: MessagePack with named fields. It is self-describing, which untagged
//! enums, flattened structs and `serde_json::Value` need.

pub(crate) mod depth;
pub(crate) mod option_check;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    let with_type_name = |reason: String| format!("`{}`: {reason}", std::any::type_name::<T>());
    option_check::check(value).map_err(with_type_name)?;
    rmp_serde::to_vec_named(value).map_err(|error| with_type_name(error.to_string()))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let with_type_name = |reason: String| format!("`{}`: {reason}", std::any::type_name::<T>());
    if depth::too_deep(bytes) {
        return Err(with_type_name(format!("its values are nested more than {} deep", depth::MAX)));
    }
    rmp_serde::from_slice(bytes).map_err(|error| with_type_name(error.to_string()))
}
