//! Replaces `ray-zerocopy/src/error`.

pub(crate) mod call;
