//! Memory that an owner and one worker share while both live, beside the socket between them.
//!
//! It holds what each of them says without a packet. The owner creates it, and its descriptor is in the
//! first packet to the worker.
//!
//! | words | what |
//! | --- | --- |
//! | 0 to 1 | the bundle of calls that the worker runs: see `bundle` |
//! | 8 to 10 | what the owner says of the running call: see `call_inbox` |
//! | 16 to 18 | how far a stream is: see `item_ring` |
//! | 64 to 127 | which memory of earlier messages is free again: see `recycled` |
//! | 128 to the end | the answers of a bundle, or the items of a stream |

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::sys::recycled_map::SegmentState;
use crate::os::sys::shared_words::SharedWords;

/// Size of the whole area in words: 256 KiB. Pages that are not used take no memory.
const WORDS: usize = 32 * 1024;
const BUNDLE: std::ops::Range<usize> = 0..2;
const CANCELLED: usize = 8;
const LIMIT: usize = 9;
const IS_WAITING: usize = 10;
const STREAM: std::ops::Range<usize> = 16..19;
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

    /// Says that the call with this number has been cancelled. Returns `true` if the worker waits for a
    /// packet, which the owner then has to send.
    pub(super) fn cancel(&self, serial: u64) -> bool {
        self.word(CANCELLED).store(serial, Ordering::SeqCst);
        self.take_waiting()
    }

    /// Returns `true` if the call with this number has been cancelled.
    pub(super) fn is_cancelled(&self, serial: u64) -> bool {
        self.word(CANCELLED).load(Ordering::SeqCst) == serial
    }

    /// Sets the number of items that the running call may send in all. Returns `true` if the worker waits
    /// for a packet, which the owner then has to send.
    pub(super) fn set_limit(&self, items: u64) -> bool {
        self.word(LIMIT).store(items, Ordering::SeqCst);
        self.take_waiting()
    }

    /// The number of items that the running call may send in all.
    pub(super) fn limit(&self) -> u64 {
        self.word(LIMIT).load(Ordering::SeqCst)
    }

    /// Says whether the worker is about to wait for a packet. It looks at the limit and the cancellation
    /// once more in between, so either it sees a change or the owner sees that it waits.
    pub(super) fn set_waiting(&self, is_waiting: bool) {
        self.word(IS_WAITING).store(is_waiting.into(), Ordering::SeqCst);
    }

    fn take_waiting(&self) -> bool {
        self.word(IS_WAITING).swap(0, Ordering::SeqCst) != 0
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0.words()[index]
    }

    /// The state of the stream that the worker runs.
    pub(super) fn stream(&self) -> &[AtomicU64] {
        &self.0.words()[STREAM]
    }

    /// Answers of the bundle, or items of the stream.
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
