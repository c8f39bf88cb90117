//! TODO.

pub(crate) mod fingerprint;
pub(crate) mod frame;
pub(crate) mod protocol;
