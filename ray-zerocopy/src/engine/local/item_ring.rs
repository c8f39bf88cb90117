//! Items of a stream in the shared memory: a ring of messages from the worker to the owner.
//!
//! The worker appends items, and raises the position up to which the ring is written. The owner reads
//! them, and raises the position up to which it is read. Positions are counts of words since the stream
//! began. An item that does not fit is sent as a packet. Each item has a number, so that both ways make
//! one order.
//!
//! No packet is needed as long as the owner finds items. Before it waits for a packet it says so, and looks
//! once more. So either it sees an item, or the worker sees that it waits, and sends a packet.
//!
//! What the worker has written is checked like a packet.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::shared_area::SharedArea;
use crate::engine::frame::{encode_contiguous, parse};
use crate::engine::message::{Incoming, Outgoing};
use crate::os::sys::shared_words::{WORD, read_bytes, write_bytes};
use crate::tensor::align::aligned_with;

/// Words before an item: the number of its bytes, and its own number.
const HEAD: u64 = 2;

/// The owner's place in a stream.
#[derive(Debug, Default)]
pub(super) struct ItemReader {
    /// The number of the call.
    serial: u64,
    /// Position of the next item in the ring.
    at: u64,
    /// The number of the next item.
    pub(super) next: u64,
}

/// The worker's place in a stream.
#[derive(Debug)]
pub(super) struct ItemWriter {
    /// The number of the call.
    serial: u64,
    at: u64,
    /// Number of items so far.
    pub(super) sent: u64,
}

impl ItemWriter {
    pub(super) fn new(serial: u64) -> Self {
        Self { serial, at: 0, sent: 0 }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an item in the shared memory is broken")
}

impl SharedArea {
    /// Prepares the ring for a stream. Called by the owner before it sends the call.
    pub(super) fn start_stream(&self, serial: u64) -> ItemReader {
        for word in [self.written(), self.read(), self.reader_waits()] {
            word.store(0, Ordering::SeqCst);
        }
        ItemReader { serial, ..ItemReader::default() }
    }

    /// Returns `true` if the next item is in the ring, and not in a packet.
    pub(super) fn has_item(&self, reader: &ItemReader) -> bool {
        self.written().load(Ordering::SeqCst) != reader.at && Ring(self.answers()).load(reader.at + 1) == reader.next
    }

    /// Says that the owner is about to wait for a packet. Returns `true` if it need not wait, because there
    /// is an item.
    pub(super) fn is_about_to_wait(&self, reader: &ItemReader) -> bool {
        self.reader_waits().store(1, Ordering::SeqCst);
        self.has_item(reader)
    }

    /// Takes the next item. Returns `None` if there is none, or if it is sent as a packet.
    ///
    /// # Errors
    /// If it is broken.
    pub(super) fn take_item(&self, reader: &mut ItemReader) -> io::Result<Option<Incoming>> {
        let ring = Ring(self.answers());
        let written = self.written().load(Ordering::Acquire);
        let Some(words) = written.checked_sub(reader.at).filter(|words| *words <= ring.words()) else {
            return Err(broken());
        };
        if words == 0 {
            return Ok(None);
        }
        let (len, number) = (ring.load(reader.at), ring.load(reader.at + 1));
        let needed = len.div_ceil(WORD as u64).checked_add(HEAD).filter(|needed| *needed <= words);
        let needed = needed.ok_or_else(broken)?;
        if number > reader.next {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| broken())?;
        // Copied before it is parsed, to memory that is aligned for tensors.
        let frame = aligned_with(len, |buffer| ring.read(reader.at + HEAD, buffer));
        let (serial, item): (u64, _) = parse(&frame)?;
        // A worker that still has an earlier call, of which it could not read a packet, has another number.
        if serial != reader.serial || number != reader.next {
            return Err(broken());
        }
        reader.at += needed;
        reader.next += 1;
        self.read().store(reader.at, Ordering::Release);
        Ok(Some(item))
    }

    /// Appends an item. Returns `false` if it has to be sent as a packet. Called by the worker.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub(super) fn append_item(&self, writer: &mut ItemWriter, item: &Outgoing) -> io::Result<bool> {
        let ring = Ring(self.answers());
        let segments: Vec<_> = item.segments.iter().map(|segment| &segment[..]).collect();
        let size: usize = segments.iter().map(|segment| segment.len()).sum();
        // A quarter, so that there are several items in the ring.
        let most = ring.words() / 4;
        let frame =
            if size as u64 / (WORD as u64) < most { encode_contiguous(&writer.serial, &segments)? } else { Vec::new() };
        let needed = HEAD + frame.len().div_ceil(WORD) as u64;
        let number = writer.sent;
        let used = writer.at.saturating_sub(self.read().load(Ordering::Acquire));
        writer.sent += 1;
        if frame.is_empty() || needed > most || used + needed > ring.words() {
            return Ok(false);
        }
        ring.store(writer.at, frame.len() as u64);
        ring.store(writer.at + 1, number);
        ring.write(writer.at + HEAD, &frame);
        writer.at += needed;
        self.written().store(writer.at, Ordering::SeqCst);
        Ok(true)
    }

    /// Returns `true` if the owner waits for a packet, which the worker then has to send.
    pub(super) fn take_waiting_reader(&self) -> bool {
        // A load comes first, since it is cheaper than an exchange, and the owner seldom waits.
        self.reader_waits().load(Ordering::SeqCst) != 0 && self.reader_waits().swap(0, Ordering::SeqCst) != 0
    }

    /// Position up to which the worker has written.
    fn written(&self) -> &AtomicU64 {
        &self.stream()[0]
    }

    /// Position up to which the owner has read.
    fn read(&self) -> &AtomicU64 {
        &self.stream()[1]
    }

    /// Whether the owner waits for a packet.
    fn reader_waits(&self) -> &AtomicU64 {
        &self.stream()[2]
    }
}

/// Words that are used again from the first one on.
struct Ring<'a>(&'a [AtomicU64]);

impl Ring<'_> {
    fn words(&self) -> u64 {
        self.0.len() as u64
    }

    fn index(&self, at: u64) -> usize {
        (at % self.words()) as usize
    }

    fn load(&self, at: u64) -> u64 {
        self.0[self.index(at)].load(Ordering::Relaxed)
    }

    fn store(&self, at: u64, value: u64) {
        self.0[self.index(at)].store(value, Ordering::Relaxed);
    }

    fn read(&self, at: u64, bytes: &mut [u8]) {
        let end = &self.0[self.index(at)..];
        let (before, after) = bytes.split_at_mut(bytes.len().min(end.len() * WORD));
        read_bytes(end, before);
        read_bytes(self.0, after);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let end = &self.0[self.index(at)..];
        let (before, after) = bytes.split_at(bytes.len().min(end.len() * WORD));
        write_bytes(end, before);
        write_bytes(self.0, after);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use burn::tensor::Bytes;

    use super::super::shared_area::SharedArea;
    use super::{ItemReader, ItemWriter};
    use crate::engine::message::Outgoing;

    fn areas() -> (SharedArea, SharedArea) {
        let (owner, descriptor) = SharedArea::create().unwrap();
        (owner, SharedArea::open(descriptor).unwrap())
    }

    fn item(number: u64, len: usize) -> Outgoing {
        let bytes = vec![number as u8; len];
        Outgoing { segments: vec![Bytes::from_bytes_vec(bytes)] }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn items_arrive_in_order_around_the_end_of_the_ring() {
        const ITEMS: u64 = 20_000;
        let len = |number: u64| (number * 37 % 900) as usize;
        let (owner, worker) = areas();
        let mut reader = owner.start_stream(5);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = ItemWriter::new(5);
                while writer.sent < ITEMS {
                    let before = writer.sent;
                    while !worker.append_item(&mut writer, &item(before, len(before))).unwrap() {
                        // Here the ring is full, and the item is tried again.
                        writer.sent = before;
                        std::thread::yield_now();
                    }
                }
            });
            while reader.next < ITEMS {
                let number = reader.next;
                if let Some(item) = owner.take_item(&mut reader).unwrap() {
                    assert_eq!(item.segments[0].len(), len(number));
                    assert!(item.segments[0].iter().all(|&byte| byte == number as u8), "{number}");
                }
            }
        });
        assert!(!owner.has_item(&reader));
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn items_that_do_not_fit_keep_their_place() {
        let (owner, worker) = areas();
        let mut reader = owner.start_stream(5);
        let mut writer = ItemWriter::new(5);
        let fits: Vec<_> = [10, 1 << 20, 10, 60_000, 60_000, 60_000, 60_000, 60_000]
            .map(|len| worker.append_item(&mut writer, &item(0, len)).unwrap())
            .into();
        assert_eq!(fits, [true, false, true, true, true, true, true, false]);
        let take = |reader: &mut ItemReader| owner.take_item(reader).unwrap().is_some();
        assert!(take(&mut reader) && !take(&mut reader), "the second one is a packet");
        assert!(!owner.has_item(&reader) && !owner.is_about_to_wait(&reader));
        reader.next += 1;
        assert!((0..5).all(|_| take(&mut reader)) && !take(&mut reader));
        assert_eq!(reader.next, 7);
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn reader_that_waits_is_seen() {
        let (owner, worker) = areas();
        let mut reader = owner.start_stream(5);
        let mut writer = ItemWriter::new(5);
        assert!(!worker.take_waiting_reader());
        assert!(!owner.is_about_to_wait(&reader));
        worker.append_item(&mut writer, &item(0, 1)).unwrap();
        assert!(worker.take_waiting_reader() && !worker.take_waiting_reader());
        assert!(owner.is_about_to_wait(&reader), "there is an item");
        assert!(owner.take_item(&mut reader).unwrap().is_some());
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn broken_items_are_errors() {
        let (owner, worker) = areas();
        let mut writer = ItemWriter::new(5);
        for (written, len) in [(u64::MAX, 1), (1, 8), (2, u64::MAX), (3, 8), (2, 0)] {
            let mut reader = owner.start_stream(5);
            worker.append_item(&mut writer, &item(0, 1)).unwrap();
            worker.stream()[0].store(written, Ordering::Relaxed);
            worker.answers()[0].store(len, Ordering::Relaxed);
            assert!(owner.take_item(&mut reader).is_err(), "{written} {len}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn items_of_an_earlier_call_are_errors() {
        let (owner, worker) = areas();
        let mut writer = ItemWriter::new(4);
        let mut reader = owner.start_stream(5);
        worker.append_item(&mut writer, &item(0, 1)).unwrap();
        assert!(owner.take_item(&mut reader).is_err());
    }
}
