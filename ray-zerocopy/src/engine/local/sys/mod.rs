//! The only unsafe code of the local engine: functions as numbers, and the process before and after `main`.

#![allow(unsafe_code)]

pub(crate) mod entry;
pub(crate) mod exit;
pub(crate) mod heap;
pub(crate) mod hook;
pub(crate) mod privileges;
