//! How values become bytes: MessagePack with named fields, because it describes itself, which untagged enums,
//! flattened structs and `serde_json::Value` need.

pub(crate) mod depth;
pub(crate) mod option_check;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, String> {
    let named = |reason: String| format!("`{}`: {reason}", std::any::type_name::<T>());
    option_check::check(value).map_err(named)?;
    rmp_serde::to_vec_named(value).map_err(|error| named(error.to_string()))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let named = |reason: String| format!("`{}`: {reason}", std::any::type_name::<T>());
    if depth::too_deep(bytes) {
        return Err(named(format!("its values are nested more than {} deep", depth::MAX)));
    }
    rmp_serde::from_slice(bytes).map_err(|error| named(error.to_string()))
}
