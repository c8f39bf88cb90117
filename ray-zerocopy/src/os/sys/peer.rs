//! Which process made the other end of a Unix socket, by the kernel's word.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A process and its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The process id as this process would write it: 0 for one outside of this process's pid namespace.
    pub(crate) pid: i32,
    /// The effective user id.
    pub(crate) uid: u32,
}

/// Asks who connected, or made, the other end of a socket. Plain numbers: `rustix` gives a process id that cannot be 0.
pub(crate) fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes to `found`, which has that many, and the new length to `len`.
    let failed =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut len) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: found.pid, uid: found.uid })
}
