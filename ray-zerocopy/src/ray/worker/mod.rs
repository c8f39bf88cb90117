//! TODO.

pub(crate) mod module;
pub(crate) mod serve;
