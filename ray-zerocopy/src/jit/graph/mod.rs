//! TODO.

pub(crate) mod code;
pub(crate) mod decode;
pub(crate) mod exec;
pub(crate) mod info;
pub(crate) mod passes;
pub(crate) mod runnable;
pub(crate) mod symbolic;
