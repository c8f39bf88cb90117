//! How the processes of a user find the copy of an arena on a GPU, and pass it on.
//!
//! Every process that has a copy listens on a socket, whose abstract name says which copy it is, and
//! sends the memory's descriptor to the processes that connect. So a copy is found as long as one
//! process has it, whichever made it. The kernel removes the name when the process ends.
//!
//! `lookup` asks for copies, and `keep` passes on those that a holder has.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    socket_with,
};
use rustix::process::geteuid;

use crate::os::fd_packet;
use crate::os::sys::peer::peer;

/// The names of one copy. Processes that have it bind the first free one.
pub(super) const NAMES: usize = 256;

/// How long a process that has a copy may take to send it.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// Connections that wait for a process which is busy.
const BACKLOG: i32 = 64;

/// The length of a key.
pub(super) const DIGITS: usize = 32;

/// Identifies a copy: 32 hexadecimal digits over all that its bytes depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CopyKey(String);

impl CopyKey {
    /// A key of everything that the bytes of a copy depend on.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().to_hex().chars().take(DIGITS).collect())
    }

    /// The key as it is sent.
    #[cfg(feature = "gpu")]
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// A key that was sent. `None` if it is not one.
    pub(super) fn sent(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() == DIGITS)?;
        text.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| Self(text.to_owned()))
    }

    pub(super) fn address(&self, name: &str) -> io::Result<SocketAddrUnix> {
        let user = geteuid().as_raw();
        let name = format!("ray-zerocopy/gpu/{user}/{}/{name}", self.0);
        Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
    }
}

pub(super) fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Binds a name and listens on it. Returns `None` if another process has the name.
pub(super) fn claim(address: &SocketAddrUnix) -> io::Result<Option<OwnedFd>> {
    let listener = socket()?;
    match bind(&listener, address) {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    listen(&listener, BACKLOG)?;
    Ok(Some(listener))
}

pub(super) fn is_of_this_user(connection: &OwnedFd) -> bool {
    peer(connection).is_ok_and(|peer| peer.uid == geteuid().as_raw())
}

/// Receives a message of this length with a descriptor. `None` if it is another one.
pub(super) fn receive<const N: usize>(connection: &OwnedFd) -> io::Result<Option<(OwnedFd, [u8; N])>> {
    set_socket_timeout(connection, Timeout::Recv, Some(ANSWER))?;
    let mut message = [0; N];
    let received = fd_packet::receive(connection, &mut message, RecvFlags::empty())?;
    let fd = received.fds.into_iter().next();
    Ok(fd.filter(|_| received.bytes == N).map(|fd| (fd, message)))
}

/// Sends a message with a descriptor. Does not wait.
pub(super) fn send(connection: &OwnedFd, memory: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    fd_packet::send(connection, message, &[memory], SendFlags::DONTWAIT)
}

/// Accepts a connection. `None` if it is from another user.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let connection = accept_with(listener, SocketFlags::CLOEXEC)?;
    Ok(is_of_this_user(&connection).then_some(connection))
}

/// Waits until one of these sockets has a connection or a message. Returns which have, and none after
/// this time.
pub(super) fn wait(sockets: &[&OwnedFd], time: Duration) -> Vec<bool> {
    let mut fds: Vec<_> = sockets.iter().map(|socket| PollFd::new(*socket, PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    if poll(&mut fds, Some(&timeout)).is_err() {
        // Most likely a signal. A lasting error must not turn into a busy loop.
        std::thread::sleep(Duration::from_millis(50));
        return vec![false; sockets.len()];
    }
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

/// The socket on which this process passes a copy on.
pub(crate) struct Server {
    listener: OwnedFd,
    memory: OwnedFd,
    len: u64,
}

impl Server {
    /// Binds a name of the copy.
    ///
    /// # Errors
    /// If all names are taken, or the kernel refuses a socket.
    pub(crate) fn new(key: &CopyKey, memory: OwnedFd, len: u64) -> io::Result<Self> {
        for number in 0..NAMES {
            if let Some(listener) = claim(&key.address(&number.to_string())?)? {
                return Ok(Self { listener, memory, len });
            }
        }
        Err(io::Error::other(format!("{NAMES} processes have it already")))
    }

    /// The socket on which processes connect.
    pub(super) fn listener(&self) -> &OwnedFd {
        &self.listener
    }

    /// Serves the processes that connect within this time.
    #[cfg(feature = "gpu")]
    pub(super) fn serve_for(&self, time: Duration) {
        if wait(&[&self.listener], time) == [true] {
            self.serve_one();
        }
    }

    /// Serves a process that has connected.
    pub(super) fn serve_one(&self) {
        let served = accept(&self.listener).and_then(|connection| match connection {
            Some(connection) => send(&connection, self.memory.as_fd(), &self.len.to_le_bytes()),
            None => Ok(()),
        });
        // A client that has ended meanwhile harms only itself.
        let _ = served;
    }
}

#[cfg(test)]
mod tests {
    use super::CopyKey;

    #[test]
    fn keys_depend_on_all_parts_and_their_borders() {
        let all = [CopyKey::of(&[b"ab", b"c"]), CopyKey::of(&[b"a", b"bc"]), CopyKey::of(&[b"abc"])];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        assert_eq!(CopyKey::of(&[b"ab", b"c"]), all[0]);
    }

    #[test]
    fn sent_keys_are_checked() {
        let key = CopyKey::of(&[b"a"]);
        assert_eq!(CopyKey::sent(key.0.as_bytes()), Some(key));
        assert_eq!(CopyKey::sent(b"0123"), None);
        assert_eq!(CopyKey::sent(&[b'x'; 32]), None);
        assert_eq!(CopyKey::sent(&[0xff; 32]), None);
    }
}
