//! The only unsafe code of the arena: mapping memory.
//!
//! Everything above this folder sees an [`OwnedFd`](std::os::fd::OwnedFd) and byte slices.

#![allow(unsafe_code)]

pub(crate) mod advice;
pub(crate) mod aligned_map;
pub(crate) mod atexit;
pub(crate) mod image;
pub(crate) mod malloc;
pub(crate) mod mapping;
pub(crate) mod memfd;
pub(crate) mod peer;
pub(crate) mod pidfd;
pub(crate) mod privileges;
pub(crate) mod signals;

#[cfg(feature = "torchscript")]
use self::mapping::OwnView;
