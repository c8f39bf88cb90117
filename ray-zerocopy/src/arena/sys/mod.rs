//! The only unsafe code of the arena: mapping memory.
//!
//! Everything above this folder sees an [`OwnedFd`](std::os::fd::OwnedFd) and byte slices.

#![allow(unsafe_code)]

mod map;
mod memfd;
mod pages;
mod reserve;

pub(crate) use map::Mapping;
pub(crate) use memfd::{SEALS, create, seal, sealed};
pub(crate) use pages::{Advice, Pages, WeakPages};
pub(crate) use reserve::HUGE_PAGE;
