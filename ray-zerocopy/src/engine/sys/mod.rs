//! The only unsafe code of the local engine: functions as numbers, and the process before and after `main`.

#![allow(unsafe_code)]

pub(crate) mod entry;
