//! Tests of the macros on token streams: their output (`golden`), and their errors
//! (`derive_errors`, `remote_errors`). The spans of errors, and whether the code compiles, are
//! tested with the runtime.
#![allow(clippy::unwrap_used)]

mod derive_errors;
mod golden;
mod remote_errors;
