//! Tensors of requests and responses: data types of the protocol, JSON and raw bytes.
//!
//! | file | what |
//! | --- | --- |
//! | `datatype` | the data types of the protocol and those of burn |
//! | `json` | elements as numbers in JSON |
//! | `raw` | elements as little-endian bytes, and checks of shapes |

pub(crate) mod datatype;
pub(crate) mod json;
pub(crate) mod raw;
