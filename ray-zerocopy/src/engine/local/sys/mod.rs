//! The only unsafe code of the local engine: functions as numbers, and the process before `main`.

#![allow(unsafe_code)]

pub(crate) mod entry;
pub(crate) mod heap;
pub(crate) mod hook;
