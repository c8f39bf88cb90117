//! The only unsafe code of the Ray bindings.
//!
//! | file | what |
//! | --- | --- |
//! | `buffer` | buffers shared between Rust and Python without a copy |
//! | `protect` | write protection of weights in the object store |
//! | `main` | startup of a worker before `main` |
//! | `signals` | restores signal handlers that Python and Ray have replaced |

#![allow(unsafe_code)]

pub(crate) mod buffer;
pub(crate) mod main;
pub(crate) mod protect;
pub(crate) mod signals;
