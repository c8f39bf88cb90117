//! TODO.

pub(crate) mod plasma;
