//! Packets between owner and worker: an unnamed Unix socket of type `SOCK_SEQPACKET`, and memfds
//! for large messages.
//!
//! A packet is one flag byte and a frame. A frame that does not fit into a packet is written to a
//! sealed memfd, which is sent with the packet, like any other file descriptor (SCM_RIGHTS). Shared
//! objects have no names that could be guessed.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, shutdown, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::recycled::{Recycled, Side};
use super::shared_area::SharedArea;
pub(super) use crate::engine::frame::Packet;
use crate::engine::frame::{INLINE, frame, parse};
use crate::engine::message::{Incoming, Outgoing};
use crate::os::sys::recycled_map::Claim;
use crate::os::{fd_packet, limits};

/// Size of a socket's send buffer: the largest packet and the kernel's overhead. The kernel's
/// default is usually half of that.
const SEND_BUFFER: usize = 4 * INLINE;

/// Programs that a process starts do not inherit its sockets. Workers only run on Linux: the empty set is for
/// other systems, on which the crate compiles.
#[cfg(target_os = "linux")]
const SOCKET_FLAGS: SocketFlags = SocketFlags::CLOEXEC;
#[cfg(not(target_os = "linux"))]
const SOCKET_FLAGS: SocketFlags = SocketFlags::empty();

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One end of the connection between an owner and one of its workers.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    /// Whether the kernel has reported that the other end was closed with an unreceived packet in it. It
    /// reports that once, before the packets that the other end has sent.
    was_reset: AtomicBool,
    /// The memory that both ends share, between an owner and its worker.
    shared: Option<SharedArea>,
    /// The memory for large messages that is used again, if there may be any.
    recycled: Option<Recycled>,
}

/// A received message.
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// Its values and tensors.
    pub payload: Incoming,
    /// The file descriptors that were sent with it.
    pub fds: Vec<OwnedFd>,
}

/// Result of waiting for a packet.
#[derive(Debug)]
pub enum Wait {
    /// A packet can be received, or the other end is closed.
    Ready,
    /// The time has elapsed.
    TimedOut,
}

/// Result of receiving.
pub(crate) enum Event<M> {
    /// A message.
    Message(Received<M>),
    /// A packet whose message could not be decoded. The next one is not affected.
    Unreadable(io::Error),
    /// No packet arrived in time.
    Quiet,
    /// The other end is closed.
    Gone(Delivery),
}

/// Whether the other end received the last packet that was sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Received,
    NotReceived,
}

impl Connection {
    /// Creates two connected ends.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SOCKET_FLAGS, None)?;
        for end in [&left, &right] {
            // The machine may allow less. `send_packet` handles that.
            let _least = set_socket_send_buffer_size(end, SEND_BUFFER);
        }
        Ok((Self::from_fd(left), Self::from_fd(right)))
    }

    /// Creates a connection from a socket that this process was given.
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket, was_reset: AtomicBool::new(false), shared: None, recycled: None }
    }

    /// Sets the memory that both ends share.
    pub(super) fn with_shared(self, shared: SharedArea) -> Self {
        Self { shared: Some(shared), ..self }
    }

    /// Sets how much memory each end may keep for large messages, which is used again. The states of that
    /// memory are in the memory that both ends [share](Self::with_shared).
    pub(super) fn with_recycled(self, side: Side, bytes: u64) -> Self {
        let area = self.shared.as_ref().filter(|_| bytes > 0);
        Self { recycled: area.map(|area| Recycled::new(area, side, bytes)), ..self }
    }

    /// The memory that both ends share.
    pub(super) fn shared(&self) -> Option<&SharedArea> {
        self.shared.as_ref()
    }

    /// Returns the file descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Sends a message, its values and tensors, and file descriptors. A packet takes at most 252
    /// descriptors.
    pub fn send<M: Serialize>(&self, message: &M, payload: &Outgoing, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_packet(&self.packet(message, payload)?, fds)
    }

    /// Encodes a message, its values and tensors, for this connection.
    pub(super) fn packet<M: Serialize>(&self, message: &M, payload: &Outgoing) -> io::Result<Packet> {
        let segments: Vec<_> = payload.segments.iter().map(|segment| &segment[..]).collect();
        Packet::placed(message, &segments, |frame| self.recycled.as_ref()?.place(frame))
    }

    /// Sends an encoded message.
    pub(super) fn send_packet(&self, packet: &Packet, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let fds: Vec<_> = packet.memfd.iter().map(AsFd::as_fd).chain(fds.iter().copied()).collect();
        match self.send_bytes(&packet.bytes, &fds, SendFlags::empty()) {
            Ok(()) => {
                packet.claim.iter().for_each(Claim::sent);
                Ok(())
            }
            Err(error) if is_too_long(&error) && packet.is_whole() => {
                let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                self.send_packet(&packet.in_memfd()?, &fds)
            }
            Err(error) => Err(limits::named("sendmsg", &error)),
        }
    }

    /// Sends a short message without waiting. Fails if the socket's buffer is full.
    pub(super) fn try_send<M: Serialize>(&self, message: &M) -> io::Result<()> {
        let packet = Packet::new(message, &Outgoing::default())?;
        self.send_bytes(&packet.bytes, &[], SendFlags::DONTWAIT)
    }

    /// Sends one packet. The error of a connection whose other end is closed is a broken pipe.
    fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        fd_packet::send(&self.socket, bytes, fds, flags).map_err(|error| match Errno::from_io_error(&error) {
            // Older kernels (seen on 5.10) return this while the other end is being closed.
            Some(Errno::CONNREFUSED) => Errno::PIPE.into(),
            _ => error,
        })
    }

    /// Shuts the connection down, for both ends and for every process that holds them.
    pub(super) fn hang_up(&self) {
        // The only error is that it was shut down before.
        let _ended = shutdown(&self.socket, Shutdown::Both);
    }

    /// Sets the timeout of [`next`](Self::next).
    pub(super) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        Ok(set_socket_timeout(&self.socket, Timeout::Recv, Some(patience))?)
    }

    /// Waits for a packet or EOF.
    pub fn wait(&self, until: Option<Instant>) -> io::Result<Wait> {
        self.poll(PollFlags::IN, until)
    }

    /// Returns `true` if a packet, or EOF, has arrived and was not received yet.
    pub(super) fn is_readable(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(ready) if ready > 0)
    }

    /// Waits for a packet or EOF, for at most `time`. Returns `true` if there is one.
    pub(super) fn is_readable_within(&self, time: Duration) -> bool {
        // After an error, receiving returns the same one.
        !matches!(self.wait(Instant::now().checked_add(time)), Ok(Wait::TimedOut))
    }

    /// Waits until the other end is closed, regardless of packets that arrive meanwhile.
    pub(super) fn wait_for_the_end(&self) -> io::Result<()> {
        // `poll` reports a hang-up even if no event is requested.
        self.poll(PollFlags::empty(), None).map(drop)
    }

    fn poll(&self, what: PollFlags, until: Option<Instant>) -> io::Result<Wait> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let timeout =
                left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            let mut fds = [PollFd::new(&self.socket, what)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Wait::TimedOut),
                Ok(_) => return Ok(Wait::Ready),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a message. Returns `None` if the other end is closed.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<Received<M>>> {
        match self.next()? {
            Event::Message(received) => Ok(Some(received)),
            Event::Unreadable(error) => Err(error),
            Event::Quiet => Err(io::ErrorKind::TimedOut.into()),
            Event::Gone(_) => Ok(None),
        }
    }

    /// Waits for the next event.
    pub(super) fn next<M: DeserializeOwned>(&self) -> io::Result<Event<M>> {
        BUFFER.with_borrow_mut(|buffer| self.receive_into(buffer, RecvFlags::empty()))
    }

    /// Receives an event that has already arrived. Does not wait.
    pub(super) fn next_at_once<M: DeserializeOwned>(&self) -> io::Result<Event<M>> {
        BUFFER.with_borrow_mut(|buffer| self.receive_into(buffer, RecvFlags::DONTWAIT))
    }

    /// Receives the next packet, which has arrived, and drops it. Returns `false` if the other end is
    /// closed.
    pub(super) fn discard(&self) -> bool {
        // The rest of a packet that does not fit is dropped as well.
        match retry(|| recv(&self.socket, &mut [0; 1][..], RecvFlags::DONTWAIT)) {
            Ok((_, received)) => received > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn receive_into<M: DeserializeOwned>(&self, buffer: &mut Vec<u8>, flags: RecvFlags) -> io::Result<Event<M>> {
        buffer.resize(1 + INLINE, 0);
        let mut received = loop {
            match fd_packet::receive(&self.socket, buffer, flags) {
                Ok(received) => break received,
                Err(Errno::AGAIN) => return Ok(Event::Quiet),
                // What the other end has sent before is still there.
                Err(Errno::CONNRESET) => self.was_reset.store(true, Ordering::Release),
                Err(error) => return Err(error.into()),
            }
        };
        if received.bytes == 0 {
            // The kernel first marks the socket as closed, and then sets the error for a packet
            // that was left in it. A receiver that runs in between gets that error only from a
            // second call.
            let mut byte = [0];
            let left = retry(|| recv(&self.socket, &mut byte[..], RecvFlags::DONTWAIT | RecvFlags::PEEK));
            let is_lost = self.was_reset.load(Ordering::Acquire)
                || left.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::CONNRESET));
            return Ok(Event::Gone(if is_lost { Delivery::NotReceived } else { Delivery::Received }));
        }
        let packet = &buffer[..received.bytes];
        if received.lost_fds {
            self.recycled.iter().for_each(|recycled| recycled.lose(packet));
            return Ok(Event::Unreadable(io::Error::other(
                "the file descriptors of a message were lost, because this process has as many open files as it may \
                 have: raise the limit, see `ulimit -n`",
            )));
        }
        let frame = match &self.recycled {
            Some(recycled) if Recycled::has(packet) => recycled.take(packet, &mut received.fds),
            _ => frame(packet, &mut received.fds),
        };
        let message = frame.and_then(|frame| parse(&frame));
        Ok(match message {
            Ok((message, payload)) => Event::Message(Received { message, payload, fds: received.fds }),
            Err(error) => Event::Unreadable(error),
        })
    }
}

#[cfg(test)]
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
impl Connection {
    /// Sends a packet of arbitrary bytes.
    pub(super) fn send_bytes_only(&self, bytes: &[u8]) {
        self.send_bytes(bytes, &[], SendFlags::empty()).unwrap();
    }

    /// Receives a packet as if its file descriptors had been lost.
    pub(super) fn lose_next(&self) {
        let mut packet = [0; 64];
        let (_, len) = recv(&self.socket, &mut packet[..], RecvFlags::empty()).unwrap();
        self.recycled.as_ref().unwrap().lose(&packet[..len]);
    }

    /// Sends a packet of arbitrary bytes, and a file descriptor.
    pub(super) fn send_raw(&self, bytes: &[u8], fd: &OwnedFd) {
        self.send_bytes(bytes, &[fd.as_fd()], SendFlags::empty()).unwrap();
    }
}

/// Returns `true` if a packet is larger than the socket's buffer.
fn is_too_long(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MSGSIZE)
}

pub(super) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
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

    use super::Connection;
    use super::Delivery;
    use super::Event;
    use super::INLINE;
    use crate::engine::message::Outgoing;
    use crate::tensor::align::ALIGN;

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
            assert_eq!(received.payload.tensor(index, ALIGN).unwrap().as_ptr() as usize % ALIGN, 0);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
    fn small_and_large_messages_arrive_whole() {
        round_trip(&[]);
        round_trip(&[1, 0, 77]);
        round_trip(&[INLINE - 200]);
        round_trip(&[INLINE]);
        round_trip(&[3, 5_000_000, 1]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
    fn small_socket_buffer_takes_every_message_size() {
        let (left, right) = Connection::pair().unwrap();
        // Like on a machine with a small `net.core.wmem_max`. The kernel's minimum is 4608 bytes.
        rustix::net::sockopt::set_socket_send_buffer_size(&left.socket, 1).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for size in [10, 3_000, 20_000, INLINE - 200, INLINE, 1 << 20] {
            let payload = Outgoing { segments: vec![Bytes::from_bytes_vec(vec![7; size])] };
            left.send(&size, &payload, &[file.as_fd()]).unwrap();
            let received = right.receive::<usize>().unwrap().unwrap();
            assert_eq!((received.message, received.fds.len()), (size, 1));
            assert!(
                received.payload.segments[0].iter().all(|&byte| byte == 7)
                    && received.payload.segments[0].len() == size
            );
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
    fn closed_peer_is_detected() {
        let (left, right) = Connection::pair().unwrap();
        right.send(&1, &Outgoing::default(), &[]).unwrap();
        assert!(matches!(left.receive::<i32>(), Ok(Some(_))));
        drop(left);
        assert!(right.receive::<()>().unwrap().is_none());
        assert!(right.wait_for_the_end().is_ok());
    }

    #[test]
    #[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
    fn unreceived_packet_is_detected() {
        let (left, right) = Connection::pair().unwrap();
        left.send(&1, &Outgoing::default(), &[]).unwrap();
        drop(right);
        for _ in 0..2 {
            assert!(matches!(left.next::<()>(), Ok(Event::Gone(Delivery::NotReceived))));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
    fn packets_of_a_peer_that_left_one_unreceived_are_kept() {
        let (left, right) = Connection::pair().unwrap();
        left.send(&1, &Outgoing::default(), &[]).unwrap();
        for number in [2, 3] {
            right.send(&number, &Outgoing::default(), &[]).unwrap();
        }
        drop(right);
        for number in [2, 3] {
            assert!(matches!(left.next::<i32>(), Ok(Event::Message(received)) if received.message == number));
        }
        assert!(matches!(left.next::<i32>(), Ok(Event::Gone(Delivery::NotReceived))));
    }

    #[test]
    #[cfg_attr(miri, ignore = "sockets and memfds, which Miri does not have")]
    fn broken_packet_does_not_affect_the_next_one() {
        let (left, right) = Connection::pair().unwrap();
        for bytes in [&[7][..], &[0, 1, 2], &[1], &[0; 40]] {
            rustix::net::send(&left.socket, bytes, rustix::net::SendFlags::empty()).unwrap();
            assert!(matches!(right.next::<i32>(), Ok(Event::Unreadable(_))));
        }
        left.send(&5, &Outgoing::default(), &[]).unwrap();
        assert_eq!(right.receive::<i32>().unwrap().unwrap().message, 5);
    }
}
