//! Peer credentials of a Unix socket, as reported by the kernel (`SO_PEERCRED`).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A process and its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Process id in the pid namespace of this process, or 0 for a process outside of it.
    pub(crate) pid: i32,
    /// Effective user id.
    pub(crate) uid: u32,
}

/// Returns the process that connected or created the other end of a socket. The fields are plain
/// numbers because the process id of `rustix` cannot be 0.
pub(crate) fn peer(socket: impl AsFd) -> io::Result<Peer> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` bytes to `found`, which is that large, and the new
    // length to `len`.
    let result =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut len) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: found.pid, uid: found.uid })
}
