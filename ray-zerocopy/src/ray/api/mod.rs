//! TODO.

pub(crate) mod actor;
pub(crate) mod builder;
pub(crate) mod cluster;
pub(crate) mod object;
pub(crate) mod options;
pub(crate) mod task;
pub(crate) mod trampoline;
