//! The only unsafe code of the arena: mapping memory.
//!
//! Everything above this folder sees an [`OwnedFd`](std::os::fd::OwnedFd) and byte slices.

#![allow(unsafe_code)]

mod file;
mod map;
mod memfd;
mod pages;
mod reserve;

pub use file::Placement;
pub(crate) use file::Promise;
pub(crate) use map::Mapping;
#[cfg(feature = "torchscript")]
pub(crate) use map::OwnView;
pub(crate) use memfd::{SEALS, create, reader, seal, sealed};
pub(crate) use pages::{Advice, Pages, WeakPages};
pub(crate) use reserve::HUGE_PAGE;
