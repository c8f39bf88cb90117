//! Bundles of calls in the shared memory: which calls the worker has begun, and their answers.
//!
//! The packet with the calls says nothing about their progress, and their answers need no packet each:
//!
//! - The worker begins the next call by raising `begun`. The owner takes back the others by lowering `end`.
//!   Both are halves of one number, so a call either has begun or has been taken back.
//! - The worker appends an answer to the area, and then raises `done`. An answer that does not fit is sent
//!   as a packet, and the area has [`BY_PACKET`] in its place.
//!
//! If the worker dies, the owner still finds what it has finished, and which one call it was running.
//!
//! What the other side has written is checked like a packet.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shared_area::SharedArea;
use crate::engine::frame::{encode_contiguous, parse};
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::queue::bundle::Bundle;
use crate::engine::served::MethodError;
use crate::os::sys::shared_words::{WORD, read_bytes, write_bytes};
use crate::tensor::align::aligned_with;

/// Why a call has no result, or `None` if it has one.
pub(super) type Failure = Option<MethodError>;

/// The place of an answer that is sent as a packet.
const BY_PACKET: u64 = u64::MAX;

/// How far a bundle is. The bundle is part of the number, so that a worker that still has an earlier one, of
/// which it could not read a packet, neither begins nor answers calls of this one.
#[derive(Clone, Copy)]
struct Cursor {
    /// The number of the first call, of which 32 bits are kept.
    first: u64,
    begun: u64,
    end: u64,
}

const HALF: u64 = u16::MAX as u64;

impl Cursor {
    fn packed(self) -> u64 {
        self.first << 32 | (self.begun & HALF) << 16 | self.end & HALF
    }

    fn unpacked(number: u64) -> Self {
        Self { first: number >> 32, begun: number >> 16 & HALF, end: number & HALF }
    }

    fn is_of(self, first: u64) -> bool {
        self.first == first & u64::from(u32::MAX)
    }
}

impl SharedArea {
    /// Prepares the area for a bundle whose first call has the number `first`. Called by the owner before it
    /// sends the packet.
    pub(super) fn start_bundle(&self, first: u64, calls: usize) {
        self.done().store(0, Ordering::Relaxed);
        self.cursor().store(Cursor { first, begun: 0, end: calls as u64 }.packed(), Ordering::Release);
    }

    /// Begins the next call of a bundle. Returns its place in it, from 0, or `None` if there is none left.
    /// Called by the worker.
    pub(super) fn begin_call(&self, first: u64) -> Option<usize> {
        let begin = |number| {
            let cursor = Cursor::unpacked(number);
            let has_next = cursor.is_of(first) && cursor.begun < cursor.end;
            has_next.then(|| Cursor { begun: cursor.begun + 1, ..cursor }.packed())
        };
        let before = self.cursor().fetch_update(Ordering::AcqRel, Ordering::Acquire, begin).ok()?;
        Some(Cursor::unpacked(before).begun as usize)
    }

    /// Takes back the calls that have not begun. Called by the owner.
    pub(super) fn withdraw_calls(&self) {
        let withdraw = |number| {
            let cursor = Cursor::unpacked(number);
            Some(Cursor { end: cursor.begun, ..cursor }.packed())
        };
        // It always succeeds.
        let _before = self.cursor().fetch_update(Ordering::AcqRel, Ordering::Acquire, withdraw);
    }

    /// Updates a bundle with what the worker has begun and finished.
    pub(super) fn update<C>(&self, bundle: &mut Bundle<C>) {
        // Read first, so that it is not larger than what has begun.
        let done = Cursor::unpacked(self.done().load(Ordering::Acquire));
        let cursor = Cursor::unpacked(self.cursor().load(Ordering::Acquire));
        let done = if done.is_of(cursor.first) { done.begun } else { 0 };
        bundle.progress(cursor.begun as usize, done as usize);
    }

    /// Reads the answer to call `serial` at word `at`, which the worker has written, and moves `at` behind it.
    /// Returns `None` if it is sent as a packet.
    ///
    /// # Errors
    /// If there is no answer, or one to another call.
    pub(super) fn read_answer(&self, at: &mut usize, serial: u64) -> io::Result<Option<(Failure, Incoming)>> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "an answer in the shared memory is broken");
        let words = self.answers();
        let len = words.get(*at).ok_or_else(broken)?.load(Ordering::Relaxed);
        *at += 1;
        if len == BY_PACKET {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| broken())?;
        let end = len.div_ceil(WORD).checked_add(*at).ok_or_else(broken)?;
        let words = words.get(*at..end).ok_or_else(broken)?;
        *at = end;
        // Copied before it is parsed, to memory that is aligned for tensors.
        let frame = aligned_with(len, |buffer| read_bytes(words, buffer));
        let ((found, failure), payload): ((u64, Failure), _) = parse(&frame)?;
        if found == serial { Ok(Some((failure, payload))) } else { Err(broken()) }
    }

    /// State of the bundle: the number of calls that have begun, and up to which they may begin.
    fn cursor(&self) -> &AtomicU64 {
        &self.bundle()[0]
    }

    /// Number of calls that are finished, and have an answer in the area or a packet.
    fn done(&self) -> &AtomicU64 {
        &self.bundle()[1]
    }
}

/// Writes the answers of a bundle. Used by the worker.
pub(super) struct AnswerWriter<'a> {
    area: &'a SharedArea,
    /// The number of the first call of the bundle.
    first: u64,
    at: usize,
    done: u64,
}

impl<'a> AnswerWriter<'a> {
    pub(super) fn new(area: &'a SharedArea, first: u64) -> Self {
        Self { area, first, at: 0, done: 0 }
    }

    /// Writes the answer of the next call. Returns `false` if it does not fit, so that a packet has to
    /// follow.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub(super) fn write(&mut self, result: &Result<Outgoing, MethodError>) -> io::Result<bool> {
        let words = self.area.answers();
        // One word is left for each answer that is sent as a packet.
        let room = words.len().saturating_sub(self.at + 1 + RESERVED) * WORD;
        let segments = result.iter().flat_map(|payload| &payload.segments);
        let segments: Vec<_> = segments.map(|segment| &segment[..]).collect();
        let size: usize = segments.iter().map(|segment| segment.len()).sum();
        let message = (self.first + self.done, result.as_ref().err());
        let frame = if size < room { encode_contiguous(&message, &segments)? } else { Vec::new() };
        let fits = !frame.is_empty() && frame.len() <= room;
        if fits {
            words[self.at].store(frame.len() as u64, Ordering::Relaxed);
            write_bytes(&words[self.at + 1..], &frame);
            self.at += 1 + frame.len().div_ceil(WORD);
        } else {
            words[self.at].store(BY_PACKET, Ordering::Relaxed);
            self.at += 1;
        }
        self.done += 1;
        let done = Cursor { first: self.first, begun: self.done, end: 0 };
        self.area.done().store(done.packed(), Ordering::Release);
        Ok(fits)
    }
}

/// Words that are kept for the places of answers that are sent as packets: more than a bundle has calls.
const RESERVED: usize = 256;

#[cfg(test)]
mod tests {
    use burn::tensor::Bytes;

    use super::super::shared_area::SharedArea;
    use super::AnswerWriter;
    use crate::engine::message::Outgoing;
    use crate::engine::queue::bundle::Bundle;

    fn areas() -> (SharedArea, SharedArea) {
        let (owner, descriptor) = SharedArea::create().unwrap();
        (owner, SharedArea::open(descriptor).unwrap())
    }

    fn payload(len: usize) -> Outgoing {
        Outgoing { segments: vec![Bytes::from_bytes_vec(vec![len as u8; len])] }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn answers_arrive_in_order() {
        let (owner, worker) = areas();
        let sizes = [0, 1, 100, 200_000, 3000, 60_000, 300_000, 7];
        let fitting = [true, true, true, true, true, false, false, true];
        let mut bundle = Bundle::new(sizes.to_vec());
        for first in [u64::from(u32::MAX), 1 << 33] {
            owner.start_bundle(first, sizes.len());
            let (mut writer, mut at) = (AnswerWriter::new(&worker, first), 0);
            for (number, size) in sizes.into_iter().enumerate() {
                assert_eq!(worker.begin_call(first), Some(number));
                let fits = writer.write(&Ok(payload(size))).unwrap();
                owner.update(&mut bundle);
                assert_eq!(bundle.unread(), number + 1);
                assert_eq!(fits, fitting[number], "{size}");
                match owner.read_answer(&mut at, first + number as u64).unwrap() {
                    Some((None, found)) => {
                        assert!(fits && found.segments[0].iter().all(|&byte| byte == size as u8));
                        assert_eq!(found.segments[0].len(), size);
                    }
                    Some((Some(failure), _)) => panic!("{failure:?}"),
                    None => assert!(!fits),
                }
            }
            assert_eq!(worker.begin_call(first), None);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn calls_are_either_begun_or_taken_back() {
        const CALLS: usize = 50;
        let (owner, worker) = areas();
        for round in 0..200 {
            let mut bundle = Bundle::new((0..CALLS).collect());
            owner.start_bundle(round, CALLS);
            let begun = std::thread::scope(|scope| {
                let begun = scope.spawn(|| std::iter::from_fn(|| worker.begin_call(round)).collect::<Vec<_>>());
                (0..round * 10).for_each(std::hint::black_box(|_| std::hint::spin_loop()));
                owner.withdraw_calls();
                begun.join().unwrap()
            });
            owner.update(&mut bundle);
            let taken_back = bundle.take_unbegun();
            assert!(begun.into_iter().chain(taken_back).eq(0..CALLS));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn broken_answers_are_errors() {
        use std::sync::atomic::Ordering;
        let (owner, worker) = areas();
        for len in [0, 3, 1 << 20, u64::MAX - 1] {
            worker.answers()[0].store(len, Ordering::Relaxed);
            assert!(owner.read_answer(&mut 0, 1).is_err(), "{len}");
        }
        assert!(owner.read_answer(&mut usize::MAX.div_euclid(2), 1).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn earlier_bundle_of_a_worker_is_not_mistaken() {
        let (owner, worker) = areas();
        owner.start_bundle(7, 2);
        assert_eq!(worker.begin_call(7), Some(0));
        let mut earlier = AnswerWriter::new(&worker, 7);
        owner.start_bundle(9, 2);
        assert_eq!(worker.begin_call(7), None, "it belongs to the other bundle");
        earlier.write(&Ok(payload(1))).unwrap();
        let mut bundle = Bundle::new(vec!['a', 'b']);
        owner.update(&mut bundle);
        assert_eq!((bundle.unread(), bundle.running()), (0, None));
        assert!(owner.read_answer(&mut 0, 9).is_err());
        assert_eq!(worker.begin_call(9), Some(0));
    }
}
