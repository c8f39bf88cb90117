//! Function pointers as tokens. The only unsafe code that is shared by the engines.

#![allow(unsafe_code)]

pub(crate) mod entry;
