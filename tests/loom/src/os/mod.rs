//! Replaces `ray-zerocopy/src/os`.

pub(crate) mod sync;
