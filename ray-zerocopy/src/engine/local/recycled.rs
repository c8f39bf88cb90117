//! Memory of large messages that is used again, between an owner and one of its workers.
//!
//! Each end of a connection has a table of segments that it writes its messages to. The other end keeps
//! them mapped, and frees a segment when the last slice of its message is dropped, without a packet: see
//! [`recycled_map`](crate::os::sys::recycled_map). A message that finds no segment is sent in a sealed
//! memfd, as on a connection without this.
//!
//! The packet of such a message is a flag, the number of the segment, whether its descriptor is in the
//! packet, and the length of the frame. All of them are untrusted.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;

use super::shared_area::SharedArea;
use crate::engine::frame::{IN_SEGMENT, LargeFrame, Packet, broken, mmap_error};
use crate::os::sync::Mutex;
use crate::os::sys::process_id::process_id;
use crate::os::sys::recycled_map::{Claim, ReaderSlot, WriterSlot};

/// Capacities are multiples of this, or powers of two below it, so that similar messages fit.
const STEP: usize = 2 << 20;
/// How many times larger than a message its segment may be, while another one could be created.
const SPARE: usize = 4;

/// The end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Owner,
    Worker,
}

/// The segments of one end of a connection.
pub(super) struct Recycled {
    written: Mutex<Written>,
    read: Mutex<Vec<ReaderSlot>>,
}

/// The segments for the messages that this end sends.
struct Written {
    /// The process that has created this. A fork must not write to the segments.
    process: u32,
    /// Bytes that all segments may have.
    limit: usize,
    slots: Vec<WriterSlot>,
}

/// A packet, without its flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    number: u8,
    /// Whether the descriptor of the segment is in the packet.
    is_new: bool,
    /// Length of the frame.
    len: usize,
}

impl Recycled {
    /// Creates the tables of one end, without segments. `bytes` limits the memory of each direction.
    pub(super) fn new(area: &SharedArea, side: Side, bytes: u64) -> Self {
        let [owner, worker] = area.recycled();
        let (written, read) = match side {
            Side::Owner => (owner, worker),
            Side::Worker => (worker, owner),
        };
        let written = Written {
            process: process_id(),
            limit: usize::try_from(bytes).unwrap_or(usize::MAX),
            slots: written.into_iter().map(WriterSlot::new).collect(),
        };
        let read = read.into_iter().map(ReaderSlot::new).collect();
        Self { written: Mutex::new(written), read: Mutex::new(read) }
    }

    /// Writes a frame to a segment. Returns `None` if there is none.
    ///
    /// The lock is held meanwhile. An end of a connection sends one large message at a time anyway.
    pub(super) fn place(&self, frame: &LargeFrame<'_>) -> Option<Packet> {
        self.written.lock().place(frame)
    }

    /// Returns `true` if the frame of a packet is in a segment.
    pub(super) fn has(packet: &[u8]) -> bool {
        packet.first() == Some(&IN_SEGMENT)
    }

    /// Returns the frame of a packet.
    ///
    /// # Errors
    /// If the packet is broken, or the segment cannot be mapped.
    pub(super) fn take(&self, packet: &[u8], fds: &mut Vec<OwnedFd>) -> io::Result<Bytes> {
        let mut slots = self.read.lock();
        let place = Place::parse(packet).ok_or_else(|| broken("it is too short"))?;
        slots.iter_mut().for_each(ReaderSlot::drop_if_writer_has);
        let slot = slots.get_mut(usize::from(place.number)).ok_or_else(|| broken("a segment that cannot exist"))?;
        let frame = take(slot, place, fds);
        if frame.is_err() {
            slot.give_up();
        }
        frame
    }

    /// Gives up the segment of a packet that was not received in full.
    pub(super) fn lose(&self, packet: &[u8]) {
        let place = Place::parse(packet).filter(|_| Self::has(packet));
        let slots = self.read.lock();
        place.and_then(|place| slots.get(usize::from(place.number))).into_iter().for_each(ReaderSlot::give_up);
    }
}

impl std::fmt::Debug for Recycled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recycled").finish_non_exhaustive()
    }
}

fn take(slot: &mut ReaderSlot, place: Place, fds: &mut Vec<OwnedFd>) -> io::Result<Bytes> {
    if place.is_new {
        if fds.is_empty() {
            return Err(broken("a segment without its descriptor"));
        }
        slot.open(fds.remove(0)).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => broken(&error.to_string()),
            _ => mmap_error(place.len as u64, &error),
        })?;
    }
    let message = slot.lease(place.len).ok_or_else(|| broken("a segment that does not hold its message"))?;
    Ok(Bytes::from_owner(message))
}

impl Written {
    fn place(&mut self, frame: &LargeFrame<'_>) -> Option<Packet> {
        if process_id() != self.process {
            return None;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.is_given_up()) {
            slot.clear();
        }
        let capacity = capacity(frame.len)?;
        if let Some(packet) = self.write(frame, capacity.saturating_mul(SPARE)) {
            return Some(packet);
        }
        if self.vacant(capacity).is_none() {
            // A segment that is much too large is better than none.
            if let Some(packet) = self.write(frame, usize::MAX) {
                return Some(packet);
            }
            self.make_room(capacity);
        }
        let number = self.vacant(capacity)?;
        match self.slots.get_mut(number)?.create(capacity, |fd| frame.write_to(fd)) {
            Ok((claim, descriptor)) => Some(packet(number, frame.len, claim, Some(descriptor))),
            Err(_) => {
                // There may be no memory for the message, unless this gives some back.
                self.slots.iter_mut().for_each(WriterSlot::clear);
                None
            }
        }
    }

    /// Writes a frame to the smallest segment that is free and large enough, and not larger than `most`.
    fn write(&mut self, frame: &LargeFrame<'_>, most: usize) -> Option<Packet> {
        let fits = |slot: &WriterSlot| slot.capacity().filter(|size| (frame.len..=most).contains(size));
        let free = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_free());
        let best = free.filter_map(|(number, slot)| Some((fits(slot)?, number, slot)));
        let (_, number, slot) = best.min_by_key(|(size, number, _)| (*size, *number))?;
        Some(packet(number, frame.len, slot.write(frame.parts())?, None))
    }

    /// Bytes of all segments that `which` chooses.
    fn bytes(&self, which: impl Fn(&WriterSlot) -> bool) -> usize {
        self.slots.iter().filter(|slot| which(slot)).filter_map(WriterSlot::capacity).sum()
    }

    /// Returns the number of a slot for a new segment, if the limits allow one.
    fn vacant(&self, capacity: usize) -> Option<usize> {
        let is_allowed = self.bytes(|_| true).checked_add(capacity)? <= self.limit;
        self.slots.iter().position(|slot| is_allowed && slot.capacity().is_none())
    }

    /// Drops free segments, beginning with the smallest, until there is room for a new one. Drops none if
    /// that would not suffice.
    fn make_room(&mut self, capacity: usize) {
        let in_use = self.bytes(|slot| !slot.is_free());
        if in_use.checked_add(capacity).is_none_or(|bytes| bytes > self.limit) {
            return;
        }
        while self.vacant(capacity).is_none() {
            let free = self.slots.iter_mut().filter(|slot| slot.is_free());
            match free.min_by_key(|slot| slot.capacity()) {
                Some(slot) => slot.clear(),
                None => return,
            }
        }
    }
}

/// Capacity of a new segment for a frame.
fn capacity(len: usize) -> Option<usize> {
    if len < STEP { len.checked_next_power_of_two() } else { len.checked_next_multiple_of(STEP) }
}

fn packet(number: usize, len: usize, claim: Claim, memfd: Option<OwnedFd>) -> Packet {
    let place = Place { number: number as u8, is_new: memfd.is_some(), len };
    Packet { bytes: place.bytes(), memfd, claim: Some(claim) }
}

impl Place {
    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![IN_SEGMENT, self.number, u8::from(self.is_new)];
        bytes.extend((self.len as u64).to_le_bytes());
        bytes
    }

    fn parse(packet: &[u8]) -> Option<Self> {
        let [_flag, number, is_new, len @ ..] = packet else { return None };
        let len = u64::from_le_bytes(len.try_into().ok()?);
        Some(Self { number: *number, is_new: *is_new != 0, len: usize::try_from(len).ok()? })
    }
}
