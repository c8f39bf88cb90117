//! Memory that an owner and one worker share while both live, beside the socket between them.
//!
//! It holds what each of them says without a packet. The owner creates it, and its descriptor is in the
//! first packet to the worker.
//!
//! | words | what |
//! | --- | --- |
//! | 0 to 1 | the bundle of calls that the worker runs: see `bundle` |
//! | 64 to 127 | which memory of earlier messages is free again: see `recycled` |
//! | 128 to the end | the answers of a bundle |

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::os::sys::recycled_map::SegmentState;
use crate::os::sys::shared_words::SharedWords;

/// Size of the whole area in words: 64 KiB. Pages that are not used take no memory.
const WORDS: usize = 8 * 1024;
const BUNDLE: std::ops::Range<usize> = 0..2;
const RECYCLED: std::ops::Range<usize> = 64..128;
const ANSWERS: usize = 128;

/// The shared memory of one connection.
#[derive(Debug)]
pub(super) struct SharedArea(Arc<SharedWords>);

impl SharedArea {
    /// Creates the area, and the descriptor for the worker.
    pub(super) fn create() -> io::Result<(Self, OwnedFd)> {
        let (words, fd) = SharedWords::create("ray-zerocopy-shared", WORDS)?;
        Ok((Self(Arc::new(words)), fd))
    }

    /// Opens the area of the owner.
    pub(super) fn open(fd: impl AsFd) -> io::Result<Self> {
        SharedWords::open(fd, WORDS).map(|words| Self(Arc::new(words)))
    }

    /// The state of the bundle that the worker runs.
    pub(super) fn bundle(&self) -> &[AtomicU64] {
        &self.0.words()[BUNDLE]
    }

    /// Answers of the bundle.
    pub(super) fn answers(&self) -> &[AtomicU64] {
        &self.0.words()[ANSWERS..]
    }

    /// The states of the memory that is used again: one half of the words for the messages of the owner,
    /// the other for those of the worker.
    pub(super) fn recycled(&self) -> [Vec<SegmentState>; 2] {
        let middle = RECYCLED.start + RECYCLED.len() / 2;
        let states = |words: std::ops::Range<usize>| words.map(|word| SegmentState::new(&self.0, word)).collect();
        [states(RECYCLED.start..middle), states(middle..RECYCLED.end)]
    }
}
