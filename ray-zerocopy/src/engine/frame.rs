//! Frames: the content of a packet, consisting of a header, the message, and its segments.
//!
//! The header holds the length of the message, the number of segments, and their lengths. All of
//! them are untrusted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{Incoming, Outgoing, layout};
use crate::arena::io::write_at;
use crate::os;
use crate::os::limits;
use crate::os::sys::mapping::Mapping;
use crate::os::sys::memfd::{create, seal};
use crate::os::sys::recycled_map::Claim;
use crate::tensor::align::ALIGN;

/// Maximum size of a frame that is sent inside the packet. For larger frames, a memfd costs less
/// than the socket's two copies.
pub(crate) const INLINE: usize = 64 * 1024;
/// Plausibility limit for a frame in a memfd: the sender runs the same program, but may be
/// defective.
const MAX_FRAME: u64 = 1 << 40;
const MAX_SEGMENTS: usize = 1 << 20;
const IN_PACKET: u8 = 0;
const IN_MEMFD: u8 = 1;
/// A frame in memory that is used again: see `local::recycled`.
pub(super) const IN_SEGMENT: u8 = 2;

/// An encoded message, ready to be sent.
pub struct Packet {
    pub(super) bytes: Vec<u8>,
    /// The memory with the frame, if it is too large for the packet and the receiver does not have it yet.
    pub(super) memfd: Option<OwnedFd>,
    /// The frame, if it is in memory that is used again.
    pub(super) claim: Option<Claim>,
}

/// A frame that is too large for a packet: its header, and its segments.
pub(super) struct LargeFrame<'a> {
    header: &'a [u8],
    segments: &'a [&'a [u8]],
    starts: &'a [usize],
    /// Size of the frame in bytes.
    pub(super) len: usize,
}

impl LargeFrame<'_> {
    /// The parts of the frame, and where they begin in it.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let segments = self.segments.iter().copied().zip(self.starts.iter().copied());
        std::iter::once((self.header, 0)).chain(segments)
    }

    /// Writes the frame to a file.
    pub(super) fn write_to(&self, fd: impl AsFd) -> io::Result<()> {
        self.parts().try_for_each(|(bytes, start)| write_at(&fd, bytes, start as u64))
    }
}

impl Packet {
    /// Encodes a message and its segments.
    pub fn new<M: Serialize>(message: &M, payload: &Outgoing) -> io::Result<Self> {
        let segments: Vec<_> = payload.segments.iter().map(|segment| &segment[..]).collect();
        Self::of(message, &segments)
    }

    /// Encodes a message and segments of several payloads.
    pub(super) fn of<M: Serialize>(message: &M, segments: &[&[u8]]) -> io::Result<Self> {
        Self::placed(message, segments, |_| None)
    }

    /// Encodes a message and its segments. If the frame is large, `place` may write it to memory of its own
    /// choice.
    pub(super) fn placed<M: Serialize>(
        message: &M,
        segments: &[&[u8]],
        place: impl FnOnce(&LargeFrame<'_>) -> Option<Self>,
    ) -> io::Result<Self> {
        let head = encode(message, segments.len())?;
        let header = 16 + segments.len() * 8 + head.len();
        let lens = || segments.iter().map(|segment| segment.len());
        let (starts, len) = layout(lens(), header);
        let inline = len <= INLINE;
        // The flag and the header, followed by the segments if they fit.
        let mut bytes = Vec::with_capacity(1 + if inline { len } else { header });
        bytes.push(if inline { IN_PACKET } else { IN_MEMFD });
        write_header(&mut bytes, &head, lens());
        if inline {
            append(&mut bytes, 1, segments.iter().copied().zip(starts));
            return Ok(Self { bytes, memfd: None, claim: None });
        }
        let frame = LargeFrame { header: &bytes[1..], segments, starts: &starts, len };
        if let Some(packet) = place(&frame) {
            return Ok(packet);
        }
        let memfd = create("ray-zerocopy-message", len as u64).map_err(|(call, error)| limits::named(call, &error))?;
        // Written, not mapped: the kernel fills whole pages, whereas a mapping would fault on each
        // page and then be torn down.
        frame.write_to(&memfd).map_err(|error| limits::named("pwrite", &error))?;
        let memfd = seal(memfd).map_err(|error| limits::named("fcntl(F_ADD_SEALS)", &error))?;
        Ok(Self { bytes: vec![IN_MEMFD], memfd: Some(memfd), claim: None })
    }

    /// Re-encodes the message in a memfd regardless of its size, for a socket that only accepts
    /// small packets.
    pub(super) fn in_memfd(&self) -> io::Result<Self> {
        let frame = &self.bytes[1..];
        let memfd = create("ray-zerocopy-message", frame.len() as u64);
        let memfd = memfd.map_err(|(call, error)| limits::named(call, &error))?;
        write_at(&memfd, frame, 0).map_err(|error| limits::named("pwrite", &error))?;
        let memfd = seal(memfd).map_err(|error| limits::named("fcntl(F_ADD_SEALS)", &error))?;
        Ok(Self { bytes: vec![IN_MEMFD], memfd: Some(memfd), claim: None })
    }

    /// Returns `true` if the frame is inside the packet.
    pub(super) fn is_whole(&self) -> bool {
        self.bytes.first() == Some(&IN_PACKET)
    }
}

fn encode<M: Serialize>(message: &M, segments: usize) -> io::Result<Vec<u8>> {
    if segments > MAX_SEGMENTS {
        return Err(io::Error::other(format!("a message has at most {MAX_SEGMENTS} tensors, not {segments}")));
    }
    crate::codec::encode(message).map_err(io::Error::other)
}

/// Writes the header and the message of a frame.
fn write_header(bytes: &mut Vec<u8>, head: &[u8], segments: impl ExactSizeIterator<Item = usize>) {
    bytes.extend((head.len() as u64).to_le_bytes());
    bytes.extend((segments.len() as u64).to_le_bytes());
    for len in segments {
        bytes.extend((len as u64).to_le_bytes());
    }
    bytes.extend(head);
}

/// Writes the segments of a frame that begins at `offset`, each at its start.
fn append<'a>(bytes: &mut Vec<u8>, offset: usize, parts: impl Iterator<Item = (&'a [u8], usize)>) {
    for (segment, start) in parts {
        bytes.resize(offset + start, 0);
        bytes.extend(segment);
    }
}

/// Encodes a frame of any size into one buffer.
pub(crate) fn encode_contiguous<M: Serialize>(message: &M, segments: &[&[u8]]) -> io::Result<Vec<u8>> {
    let head = encode(message, segments.len())?;
    let lens = || segments.iter().map(|segment| segment.len());
    let (starts, len) = layout(lens(), 16 + segments.len() * 8 + head.len());
    let mut bytes = Vec::with_capacity(len);
    write_header(&mut bytes, &head, lens());
    append(&mut bytes, 0, segments.iter().copied().zip(starts));
    Ok(bytes)
}

/// Returns the frame of a packet, in memory that is aligned to [`ALIGN`].
pub(crate) fn frame(packet: &[u8], fds: &mut Vec<OwnedFd>) -> io::Result<bytes::Bytes> {
    match packet.split_first() {
        Some((&IN_PACKET, frame)) => Ok(crate::tensor::align::aligned(frame)),
        Some((&IN_MEMFD, _)) if !fds.is_empty() => map(&fds.remove(0)),
        _ => Err(broken("an unknown kind of packet")),
    }
}

fn map(fd: &OwnedFd) -> io::Result<bytes::Bytes> {
    let len = rustix::fs::fstat(fd)?.st_size as u64;
    if len == 0 || len > MAX_FRAME {
        return Err(broken("a memfd of an impossible size"));
    }
    let mapping = Mapping::open(fd.as_fd(), len as usize).map_err(|error| mmap_error(len, &error))?;
    Ok(bytes::Bytes::from_owner(mapping))
}

/// Explains why memory of `len` bytes with a frame could not be mapped.
pub(super) fn mmap_error(len: u64, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("mmap: {}", os::limits::explained("mmap", len, error)))
}

/// Parses a frame into its message and its segments.
pub(crate) fn parse<M: DeserializeOwned>(frame: &bytes::Bytes) -> io::Result<(M, Incoming)> {
    let number = |at: usize| {
        let bytes = frame.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(u64::from_le_bytes)
            .and_then(|number| usize::try_from(number).ok())
            .ok_or_else(|| broken("it is too short"))
    };
    let (head, count) = (number(0)?, number(8)?);
    if count > MAX_SEGMENTS {
        return Err(broken("too many segments"));
    }
    let start = 16 + count * 8;
    let mut end = start.checked_add(head).ok_or_else(|| broken("a length overflows"))?;
    let header = frame.get(start..end).ok_or_else(|| broken("it is too short"))?;
    let message = crate::codec::decode(header).map_err(|reason| broken(&reason))?;
    let mut segments = Vec::with_capacity(count);
    for index in 0..count {
        let start = end.checked_next_multiple_of(ALIGN).ok_or_else(|| broken("a length overflows"))?;
        end = number(16 + index * 8)?.checked_add(start).ok_or_else(|| broken("a length overflows"))?;
        if end > frame.len() {
            return Err(broken("it is too short"));
        }
        segments.push(frame.slice(start..end));
    }
    Ok((message, Incoming::new(segments)))
}

/// Creates an error of kind `InvalidData`: the received bytes were not written by this program.
pub(super) fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a packet is broken: {what}"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use burn::tensor::Bytes;
    use rustix::fs::{OFlags, fcntl_getfl};

    use super::IN_MEMFD;
    use super::INLINE;
    use super::Outgoing;
    use super::Packet;
    use super::create;
    use super::frame;
    use super::parse;
    use super::write_at;
    use crate::os::sys::memfd::SEALS;

    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn sent_memory_is_read_only() {
        let payload = Outgoing { segments: vec![Bytes::from_bytes_vec(vec![7_u8; 2 * INLINE])] };
        let packet = Packet::new(&1_u32, &payload).unwrap();
        let memfd = packet.memfd.unwrap();
        assert_eq!(fcntl_getfl(&memfd).unwrap().intersection(OFlags::RWMODE), OFlags::RDONLY);
        let (number, received) = parse::<u32>(&frame(&packet.bytes, &mut vec![memfd]).unwrap()).unwrap();
        assert_eq!((number, &received.segments[0][..]), (1, &payload.segments[0][..]));
    }

    /// Packet as sent by an earlier version.
    #[test]
    #[cfg_attr(miri, ignore = "a memfd, which Miri does not have")]
    fn writable_memory_is_received_and_read() {
        let memfd = create("ray-zerocopy-message", 4096).unwrap();
        write_at(memfd.as_fd(), &[7; 4096], 0).unwrap();
        rustix::fs::fcntl_add_seals(&memfd, SEALS).unwrap();
        assert!(frame(&[IN_MEMFD], &mut vec![memfd]).unwrap().iter().all(|&byte| byte == 7));
    }

    #[test]
    fn broken_frames_are_errors() {
        for frame in [
            vec![],
            vec![0; 15],
            [u64::MAX.to_le_bytes(), 0_u64.to_le_bytes()].concat(),
            [0_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(),
            [1_u64.to_le_bytes(), 1_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(),
        ] {
            assert!(parse::<()>(&frame.into()).is_err());
        }
    }
}
