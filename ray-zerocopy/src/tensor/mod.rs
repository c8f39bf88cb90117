//! TODO.

pub(crate) mod align;
pub(crate) mod convert;
pub(crate) mod copied;
pub(crate) mod dtype;
pub(crate) mod host;
pub(crate) mod kind;
#[cfg(feature = "libtorch")]
pub(crate) mod libtorch;
pub(crate) mod source;
pub(crate) mod value;
