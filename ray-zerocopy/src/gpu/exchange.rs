//! How the processes of a user find the copy of an arena on a GPU, and pass it on.
//!
//! Every process that has a copy listens on a socket, whose abstract name says which copy it is, and
//! sends the memory's descriptor to the processes that connect. So a copy is found as long as one
//! process has it, whichever made it. The kernel removes the name when the process ends.
//!
//! A copy is looked for, and made, by one process at a time: the one that has bound the name of its
//! lock.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recvmsg, sendmsg,
    socket_with,
};
use rustix::process::geteuid;

use crate::os::sys::peer::peer;

/// The names of one copy. Processes that have it bind the first free one.
const NAMES: usize = 256;

/// How long the lookup of a copy waits for another process: one that uploads it, or one that has it
/// and is stopped.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a process that has a copy may take to send it.
const ANSWER: Duration = Duration::from_secs(5);

/// Pause after which a name that could not be bound is tried again.
const PAUSE: Duration = Duration::from_millis(5);

/// Connections that wait for a process which is busy.
const BACKLOG: i32 = 64;

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
        Self(hasher.finalize().to_hex().chars().take(32).collect())
    }

    fn address(&self, name: &str) -> io::Result<SocketAddrUnix> {
        let user = geteuid().as_raw();
        let name = format!("ray-zerocopy/gpu/{user}/{}/{name}", self.0);
        Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
    }
}

fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Binds a name and listens on it. Returns `None` if another process has the name.
fn claim(address: &SocketAddrUnix) -> io::Result<Option<OwnedFd>> {
    let listener = socket()?;
    match bind(&listener, address) {
        Ok(()) => {}
        Err(Errno::ADDRINUSE) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    listen(&listener, BACKLOG)?;
    Ok(Some(listener))
}

/// Connects to a name. Returns `None` if no process has it, or one of another user.
fn reach(address: &SocketAddrUnix) -> io::Result<Option<OwnedFd>> {
    let connection = socket()?;
    // A full backlog is an error after this time, and not a wait without an end.
    set_socket_timeout(&connection, Timeout::Send, Some(ANSWER))?;
    match connect(&connection, address) {
        Ok(()) => {}
        Err(Errno::CONNREFUSED | Errno::AGAIN | Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    Ok(is_of_this_user(&connection).then_some(connection))
}

fn is_of_this_user(connection: &OwnedFd) -> bool {
    peer(connection).is_ok_and(|peer| peer.uid == geteuid().as_raw())
}

/// The right to look for a copy and to make it. Ends when it is dropped, or with the process.
pub(crate) struct Lock {
    _listener: OwnedFd,
}

impl Lock {
    /// Waits for the lock of a copy.
    ///
    /// # Errors
    /// If another process keeps it for a minute.
    pub(crate) fn take(key: &CopyKey) -> io::Result<Self> {
        let address = key.address("lock")?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(listener) = claim(&address)? {
                return Ok(Self { _listener: listener });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let reason = "another process has been uploading it for a minute";
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            // The process with the lock never accepts: the connection ends when the lock does.
            match reach(&address)? {
                Some(connection) => wait_for_the_end(&connection, left)?,
                // It has ended just now, or the name belongs to another user.
                None => std::thread::sleep(PAUSE),
            }
        }
    }
}

fn wait_for_the_end(connection: &OwnedFd, time: Duration) -> io::Result<()> {
    let mut fds = [PollFd::new(connection, PollFlags::IN)];
    let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Asks the processes that have a copy for it. Returns its descriptor and its length, or `None` if
/// no process has it.
pub(crate) fn find(key: &CopyKey) -> io::Result<Option<(OwnedFd, u64)>> {
    for number in 0..NAMES {
        let Some(connection) = reach(&key.address(&number.to_string())?)? else { continue };
        // It may have ended since, or be stopped: another one has the copy as well.
        if let Ok(Some(found)) = receive(&connection) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn receive(connection: &OwnedFd) -> io::Result<Option<(OwnedFd, u64)>> {
    set_socket_timeout(connection, Timeout::Recv, Some(ANSWER))?;
    let mut len = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(connection, &mut [IoSliceMut::new(&mut len)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(fd.filter(|_| received.bytes == len.len()).map(|fd| (fd, u64::from_le_bytes(len))))
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

    /// Serves the processes that connect within this time.
    pub(crate) fn serve_for(&self, time: Duration) {
        let mut fds = [PollFd::new(&self.listener, PollFlags::IN)];
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(1..) => {
                // A client that has ended meanwhile harms only itself.
                let _ = self.serve_one();
            }
            Ok(0) => {}
            // Most likely a signal. A lasting error must not turn into a busy loop.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }

    fn serve_one(&self) -> io::Result<()> {
        let connection = accept_with(&self.listener, SocketFlags::CLOEXEC)?;
        if !is_of_this_user(&connection) {
            return Ok(());
        }
        let memory = [self.memory.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&memory)) {
            return Err(io::Error::other("a descriptor does not fit the message"));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&connection, &[IoSlice::new(&self.len.to_le_bytes())], &mut control, flags)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::{CopyKey, Lock, Server, find};

    fn key(name: &str) -> CopyKey {
        CopyKey::of(&[name.as_bytes(), &std::process::id().to_le_bytes()])
    }

    fn memory(name: &str) -> OwnedFd {
        rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap()
    }

    fn inode(fd: &OwnedFd) -> u64 {
        rustix::fs::fstat(fd).unwrap().st_ino
    }

    #[test]
    fn keys_depend_on_all_parts_and_their_borders() {
        let all = [CopyKey::of(&[b"ab", b"c"]), CopyKey::of(&[b"a", b"bc"]), CopyKey::of(&[b"abc"])];
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
        assert_eq!(CopyKey::of(&[b"ab", b"c"]), all[0]);
    }

    #[test]
    fn copy_is_found_as_long_as_one_process_has_it() {
        let key = key("found");
        assert!(find(&key).unwrap().is_none());
        let own = memory("copy");
        let expected = inode(&own);
        let first = Server::new(&key, own.try_clone().unwrap(), 4096).unwrap();
        let second = Server::new(&key, own, 4096).unwrap();
        let ask = || {
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| find(&key).unwrap().map(|(fd, len)| (inode(&fd), len)));
                while !asking.is_finished() {
                    second.serve_for(Duration::from_millis(10));
                }
                asking.join().unwrap()
            })
        };
        drop(first);
        assert_eq!(ask(), Some((expected, 4096)));
        drop(second);
        assert!(find(&key).unwrap().is_none());
    }

    #[test]
    fn lock_is_taken_by_one_at_a_time() {
        let key = key("lock");
        let lock = Lock::take(&key).unwrap();
        let waiting = std::thread::spawn({
            let key = key.clone();
            move || Lock::take(&key).map(|_| ())
        });
        std::thread::sleep(Duration::from_millis(30));
        assert!(!waiting.is_finished());
        drop(lock);
        waiting.join().unwrap().unwrap();
    }
}
