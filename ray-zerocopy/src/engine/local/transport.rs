//! Packets between owner and worker: a Unix socket of type SEQPACKET, which has no name, and memfds for what is large.
//!
//! A packet is one flag byte and a frame. A frame that does not fit into a packet goes into a sealed memfd, which is
//! sent along, as is any other file descriptor: nothing that is shared ever has a name that could be guessed.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arena::sys::{Mapping, create, seal};
use crate::engine::message::{Incoming, Outgoing, aligned};

/// Frames up to this size are sent in the packet itself. Above it, a memfd costs less than the socket's two copies.
const INLINE: usize = 64 * 1024;
/// A frame in a memfd has to be believable: the sender is the same program, but it may be broken.
const MAX_FRAME: u64 = 1 << 40;
const MAX_SEGMENTS: usize = 1 << 20;
/// The kernel takes 253 file descriptors in one packet.
pub(crate) const MAX_FDS: usize = 253;
const IN_PACKET: u8 = 0;
const IN_MEMFD: u8 = 1;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One end of the connection between an owner and one of its workers.
#[derive(Debug)]
pub struct Connection(OwnedFd);

/// What arrived.
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// The bytes that belong to it.
    pub payload: Incoming,
    /// The file descriptors that came along.
    pub fds: Vec<OwnedFd>,
}

/// How waiting for a packet ended.
#[derive(Debug)]
pub enum Wait {
    /// There is a packet, or the other end is gone.
    Ready,
    /// The time is over.
    TimedOut,
}

impl Connection {
    /// Two connected ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(left), Self(right)))
    }

    /// The end that this process was given.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The file descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a message, the bytes that belong to it, and file descriptors, of which a packet takes 252.
    pub fn send<M: Serialize>(&self, message: &M, payload: &Outgoing, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let head = crate::codec::encode(message).map_err(io::Error::other)?;
        let segments = payload.segments.len();
        if segments > MAX_SEGMENTS {
            return Err(io::Error::other(format!("a message has at most {MAX_SEGMENTS} tensors, not {segments}")));
        }
        let mut header = Vec::with_capacity(16 + segments * 8 + head.len());
        header.extend((head.len() as u64).to_le_bytes());
        header.extend((segments as u64).to_le_bytes());
        payload.segments.iter().for_each(|segment| header.extend((segment.len() as u64).to_le_bytes()));
        header.extend(&head);
        let (starts, len) = payload.layout(header.len());

        let parts = || {
            std::iter::once((header.as_slice(), 0))
                .chain(payload.segments.iter().map(|s| &s[..]).zip(starts.iter().copied()))
        };
        if len <= INLINE {
            let mut packet = vec![0; 1 + len];
            packet[0] = IN_PACKET;
            parts().for_each(|(bytes, start)| packet[1 + start..][..bytes.len()].copy_from_slice(bytes));
            return self.packet(&packet, fds);
        }
        let named = |(call, error): (&str, io::Error)| io::Error::new(error.kind(), format!("{call}: {error}"));
        let memfd = create("ray-zerocopy-message", len as u64).map_err(named)?;
        // Written, not mapped: the kernel fills whole pages, where a map would fault on each and be torn down again.
        parts()
            .try_for_each(|(bytes, start)| write_at(&memfd, bytes, start))
            .map_err(|error| named(("pwrite", error)))?;
        seal(&memfd).map_err(|error| named(("fcntl(F_ADD_SEALS)", error)))?;
        let fds: Vec<_> = std::iter::once(memfd.as_fd()).chain(fds.iter().copied()).collect();
        self.packet(&[IN_MEMFD], &fds)
    }

    fn packet(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("more file descriptors than a packet may carry"));
        }
        retry(|| sendmsg(&self.0, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)).map(drop)
    }

    /// Waits for a packet, or for the other end to go.
    pub fn wait(&self, until: Option<Instant>) -> io::Result<Wait> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout =
                left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Wait::TimedOut),
                Ok(_) => return Ok(Wait::Ready),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message; `None` if the other end is gone.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<Received<M>>> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(1 + INLINE, 0);
            self.receive_into(buffer)
        })
    }

    fn receive_into<M: DeserializeOwned>(&self, buffer: &mut [u8]) -> io::Result<Option<Received<M>>> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received =
            retry(|| recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC));
        let received = match received {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            other => other?,
        };
        let lost_fds = received.flags.contains(ReturnFlags::CTRUNC);
        let mut fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        if lost_fds {
            return Err(io::Error::other(
                "the file descriptors of a message were lost; is the limit of open files reached (see `ulimit -n`)?",
            ));
        }
        let frame = match buffer[..received.bytes].split_first() {
            None => return Ok(None),
            Some((&IN_PACKET, frame)) => aligned(frame),
            Some((&IN_MEMFD, _)) if !fds.is_empty() => map(&fds.remove(0))?,
            Some(_) => return Err(broken("an unknown kind of packet")),
        };
        let (message, payload) = parse(&frame)?;
        Ok(Some(Received { message, payload, fds }))
    }
}

fn write_at(fd: &OwnedFd, mut bytes: &[u8], mut start: usize) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = retry(|| rustix::io::pwrite(fd, bytes, start as u64))?;
        bytes = &bytes[written..];
        start += written;
    }
    Ok(())
}

fn map(fd: &OwnedFd) -> io::Result<bytes::Bytes> {
    let len = rustix::fs::fstat(fd)?.st_size as u64;
    if len == 0 || len > MAX_FRAME {
        return Err(broken("a memfd of an impossible size"));
    }
    Ok(bytes::Bytes::from_owner(Mapping::open(fd, len as usize)?))
}

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
    let message = crate::codec::decode(header).map_err(io::Error::other)?;
    let mut segments = Vec::with_capacity(count);
    for index in 0..count {
        let start = end.next_multiple_of(crate::engine::message::ALIGN);
        end = number(16 + index * 8)?.checked_add(start).ok_or_else(|| broken("a length overflows"))?;
        if end > frame.len() {
            return Err(broken("it is too short"));
        }
        segments.push(frame.slice(start..end));
    }
    Ok((message, Incoming { segments }))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a packet is broken: {what}"))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use burn::tensor::Bytes;

    use super::{Connection, INLINE, parse};
    use crate::engine::message::{ALIGN, Outgoing};

    fn round_trip(sizes: &[usize]) {
        let (left, right) = Connection::pair().unwrap();
        let payload =
            Outgoing { segments: sizes.iter().map(|&size| Bytes::from_bytes_vec(vec![size as u8; size])).collect() };
        let file = std::fs::File::open("/dev/null").unwrap();
        left.send(&("hello", 7), &payload, &[file.as_fd()]).unwrap();
        let received = right.receive::<(String, i32)>().unwrap().unwrap();
        assert_eq!(received.message, ("hello".to_owned(), 7));
        assert_eq!(received.fds.len(), 1);
        let found: Vec<_> = received.payload.segments.iter().map(|segment| segment.to_vec()).collect();
        let expected: Vec<_> = sizes.iter().map(|&size| vec![size as u8; size]).collect();
        assert_eq!(found, expected);
        for index in 0..sizes.len() {
            assert_eq!(received.payload.tensor(index).unwrap().as_ptr() as usize % ALIGN, 0);
        }
    }

    #[test]
    fn small_and_large_messages_arrive_whole() {
        round_trip(&[]);
        round_trip(&[1, 0, 77]);
        round_trip(&[INLINE - 200]);
        round_trip(&[INLINE]);
        round_trip(&[3, 5_000_000, 1]);
    }

    #[test]
    fn the_end_of_the_other_side_is_seen() {
        let (left, right) = Connection::pair().unwrap();
        drop(left);
        assert!(right.receive::<()>().unwrap().is_none());
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
