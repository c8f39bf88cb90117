//! The only unsafe code of the Ray bindings: buffers that Python lends and borrows, page protection, and the process
//! before and after `main`.

#![allow(unsafe_code)]

pub(crate) mod buffer;
pub(crate) mod exit;
pub(crate) mod main;
pub(crate) mod protect;
pub(crate) mod signals;
