//! Looking for a copy: one process at a time, which makes it if no process has it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{SocketAddrUnix, connect};
use rustix::process::{Pid, geteuid, test_kill_process};

use super::exchange::{ANSWER, CopyKey, NAMES, claim, receive, send, socket, wait};
use super::keep::{KEEPERS, keeper_key};
use crate::os::procfs;
use crate::os::sys::peer::peer;

/// How long the lookup of a copy waits for another process that is stopped. Tests need not wait a minute.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(60) };

/// Pause after which a name that could not be bound is tried again.
const PAUSE: Duration = Duration::from_millis(5);

/// A connection to the process that has a name.
struct Reached {
    connection: OwnedFd,
    pid: u32,
}

/// Connects to a name. Returns `None` if no process has it, or one of another user, or only a fork of a process that has ended.
fn reach(address: &SocketAddrUnix) -> io::Result<Option<Reached>> {
    let connection = socket()?;
    // A full backlog is an error after this time, and not a wait without an end.
    set_socket_timeout(&connection, Timeout::Send, Some(ANSWER))?;
    match connect(&connection, address) {
        Ok(()) => {}
        Err(Errno::CONNREFUSED | Errno::AGAIN | Errno::CONNRESET) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let Ok(peer) = peer(&connection) else { return Ok(None) };
    let pid = u32::try_from(peer.pid).unwrap_or(0);
    // 0 stands for a process of another pid namespace.
    let has_ended = Pid::from_raw(peer.pid).is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH));
    Ok((peer.uid == geteuid().as_raw() && !has_ended).then_some(Reached { connection, pid }))
}

/// Whether a process of this pid namespace is stopped, by a signal or a debugger.
fn is_stopped(pid: u32) -> bool {
    matches!(procfs::state(pid), Some('T' | 't'))
}

/// The right to look for a copy and to make it. Ends when it is dropped, or with the process.
pub(crate) struct Lock {
    _listener: OwnedFd,
}

impl Lock {
    /// Waits for the lock of a copy: as long as the process that has it uploads, which takes minutes if it reads from a disk.
    ///
    /// # Errors
    /// If that process is stopped after a minute, or has ended and a fork of it still has the lock.
    pub(crate) fn take(key: &CopyKey) -> io::Result<Self> {
        let address = key.address("lock")?;
        let mut until = Instant::now() + PATIENCE;
        let mut holder = None;
        loop {
            if let Some(listener) = claim(&address)? {
                return Ok(Self { _listener: listener });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let reason = match holder {
                    Some(pid) if !is_stopped(pid) => {
                        until = Instant::now() + PATIENCE;
                        continue;
                    }
                    Some(pid) => format!("process {pid}, which uploads it, is stopped"),
                    None => {
                        "a process that has ended was uploading it, and a fork of it keeps others from that".to_owned()
                    }
                };
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            // The process with the lock never accepts: the connection ends when the lock does.
            holder = match reach(&address)? {
                Some(Reached { connection, pid }) => {
                    drop(wait(&[&connection], left));
                    Some(pid)
                }
                // It has ended just now, or the name belongs to another user.
                None => {
                    std::thread::sleep(PAUSE);
                    None
                }
            };
        }
    }
}

/// Asks the processes that have a copy for it. Returns its descriptor and its length, or `None` if
/// no process has it.
pub(crate) fn find(key: &CopyKey) -> io::Result<Option<(OwnedFd, u64)>> {
    for number in 0..NAMES {
        let Some(Reached { connection, .. }) = reach(&key.address(&number.to_string())?)? else { continue };
        // It may have ended since, or be stopped: another one has the copy as well.
        if let Ok(Some((fd, len))) = receive(&connection) {
            return Ok(Some((fd, u64::from_le_bytes(len))));
        }
    }
    Ok(None)
}

/// Gives a copy to the holders that keep its arena, so that it stays when this process ends.
pub(crate) fn give_to_keepers(arena: &[u8], key: &CopyKey, memory: &OwnedFd, len: u64) {
    let message = [&len.to_le_bytes()[..], key.as_bytes()].concat();
    for number in 0..KEEPERS {
        let given = keeper_key(arena).address(&number.to_string()).and_then(|address| match reach(&address)? {
            Some(Reached { connection, .. }) => send(&connection, memory.as_fd(), &message),
            None => Ok(()),
        });
        // A holder that has ended meanwhile keeps nothing.
        let _ = given;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use super::{CopyKey, Lock, find};
    use crate::gpu::exchange::Server;

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
        // Longer than the patience with a process that is stopped.
        std::thread::sleep(Duration::from_millis(700));
        assert!(!waiting.is_finished());
        drop(lock);
        waiting.join().unwrap().unwrap();
    }
}
