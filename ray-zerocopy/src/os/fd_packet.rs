//! Packets over Unix sockets, with file descriptors beside their bytes (`SCM_RIGHTS`).
//!
//! Programs that a process starts do not inherit what it has received, and sending to a closed socket is an
//! error instead of a signal.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// Largest number of file descriptors that the kernel accepts in one packet (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 253;

// The empty sets are for systems on which the crate only compiles.
#[cfg(target_os = "linux")]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_os = "linux")]
const RECV_FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: SendFlags = SendFlags::empty();
#[cfg(not(target_os = "linux"))]
const RECV_FLAGS: RecvFlags = RecvFlags::empty();

/// A received packet.
pub(crate) struct Packet {
    /// Number of bytes. 0 if the other end is closed.
    pub(crate) bytes: usize,
    pub(crate) fds: Vec<OwnedFd>,
    /// Whether descriptors were lost, because the process has as many open files as it may have.
    pub(crate) lost_fds: bool,
}

/// Sends a packet.
///
/// # Errors
/// If there are more than [`MAX_FDS`] descriptors, or the kernel refuses the packet.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    // The space is rounded up, and may take one more than the kernel does.
    let fits = fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds));
    if !fits || fds.len() > MAX_FDS {
        return Err(io::Error::other("too many file descriptors for one packet"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags | SEND_FLAGS) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives a packet into `buffer`.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Packet, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags | RECV_FLAGS) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds = rights.flatten().collect();
    Ok(Packet { bytes: received.bytes, fds, lost_fds: received.flags.contains(ReturnFlags::CTRUNC) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::io::Errno;
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};

    use super::{MAX_FDS, receive, send};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None).unwrap()
    }

    #[test]
    fn descriptors_arrive_with_their_packet() {
        let (one, other) = pair();
        let file = File::open("/dev/null").unwrap();
        send(&one, b"first", &vec![file.as_fd(); MAX_FDS], SendFlags::empty()).unwrap();
        send(&one, b"second", &[], SendFlags::empty()).unwrap();
        let mut buffer = [0; 16];
        let first = receive(&other, &mut buffer, RecvFlags::empty()).unwrap();
        assert_eq!((first.bytes, first.fds.len(), first.lost_fds), (5, MAX_FDS, false));
        let second = receive(&other, &mut buffer, RecvFlags::empty()).unwrap();
        assert_eq!((&buffer[..second.bytes], second.fds.len()), (&b"second"[..], 0));
        assert!(matches!(receive(&other, &mut buffer, RecvFlags::DONTWAIT), Err(Errno::AGAIN)));
        drop(one);
        assert_eq!(receive(&other, &mut buffer, RecvFlags::empty()).unwrap().bytes, 0);
    }

    #[test]
    fn too_many_descriptors_and_closed_sockets_are_errors() {
        let (one, other) = pair();
        let file = File::open("/dev/null").unwrap();
        let error = send(&one, b"x", &vec![file.as_fd(); MAX_FDS + 1], SendFlags::empty()).unwrap_err();
        assert_eq!(error.to_string(), "too many file descriptors for one packet");
        drop(other);
        let error = send(&one, b"x", &[], SendFlags::empty()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
}
