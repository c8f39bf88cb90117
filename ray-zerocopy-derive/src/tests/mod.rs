//! The macros' logic on token streams: what they write (`golden`), and what they refuse (`derive_errors`,
//! `remote_errors`). Where the errors point, and whether the code compiles, is tested with the runtime.
#![allow(clippy::unwrap_used)]

mod derive_errors;
mod golden;
mod remote_errors;
