//! A holder that systemd starts, and whose memory it keeps while the holder restarts.
//!
//! systemd stores file descriptors of a service (`FDSTORE=1`) and passes them to its next process, and
//! it listens on a socket for a service that does not run. Both arrive as `LISTEN_FDS`.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::fs::{FileType, fstat};
use sd_notify::{NotifyState, notify, notify_with_fds};

use super::endpoint::Endpoint;
use super::key::Key;
use crate::arena::arena::Arena;
use crate::arena::manifest::ArenaId;
use crate::error::arena::ArenaError;
use crate::error::holder::HolderError;
use crate::os::sys::passed_fds;

fn failed(what: &str, error: &dyn ToString) -> HolderError {
    HolderError::Service { what: what.to_owned(), reason: error.to_string() }
}

/// The name of an arena in systemd's store.
fn name(id: ArenaId) -> String {
    format!("arena-{}", id.to_hex())
}

/// Takes over the file descriptors that systemd passes. Returns the arenas among them.
pub(super) fn resume(endpoint: &'static Endpoint) -> Result<Vec<Arena>, HolderError> {
    let passed = passed_fds::take().map_err(|error| failed("passed no readable list of file descriptors", &error))?;
    let (mut sockets, mut memory) = (Vec::new(), Vec::new());
    for (name, fd) in passed {
        let is_socket = fstat(&fd).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket);
        if is_socket {
            sockets.push(UnixListener::from(fd));
        } else {
            memory.push((name, fd));
        }
    }
    let arenas = restore(endpoint, memory)?;
    // The program that waits at the socket is answered when everything is offered.
    sockets.into_iter().try_for_each(|socket| endpoint.listen(socket))?;
    Ok(arenas)
}

/// Offers the arenas that systemd has stored, and keeps them. Variants come after their bases.
fn restore(endpoint: &'static Endpoint, mut stored: Vec<(String, OwnedFd)>) -> Result<Vec<Arena>, HolderError> {
    let mut arenas = Vec::new();
    while !stored.is_empty() {
        let before = stored.len();
        let mut reason = None;
        for (name, fd) in std::mem::take(&mut stored) {
            match open(&fd, &arenas) {
                Ok(arena) => {
                    let key = Key::of_arena(arena.id());
                    endpoint.offer(key, &format!("arena {}", arena.id()), &arena)?;
                    endpoint.keep(&key, &arena);
                    arenas.push(arena);
                }
                Err(error @ ArenaError::NeedsBase { .. }) => {
                    reason.get_or_insert_with(|| failed(&format!("has stored `{name}`"), &error));
                    stored.push((name, fd));
                }
                Err(error) => return Err(failed(&format!("has stored `{name}`"), &error)),
            }
        }
        if let Some(reason) = reason.filter(|_| stored.len() == before) {
            return Err(reason);
        }
    }
    Ok(arenas)
}

/// Opens an arena: a whole one, or a variant of one in `bases`.
fn open(fd: &OwnedFd, bases: &[Arena]) -> Result<Arena, ArenaError> {
    let again = || fd.try_clone().map_err(|error| ArenaError::system("fcntl(F_DUPFD_CLOEXEC)", 0, error));
    let whole = Arena::from_memfd(again()?);
    if !matches!(whole, Err(ArenaError::NeedsBase { .. })) {
        return whole;
    }
    for base in bases {
        if let Ok(variant) = Arena::from_memfd_on(again()?, base) {
            return Ok(variant);
        }
    }
    whole
}

/// Lets systemd store the memory of an arena. It ignores what it has stored already.
pub(super) fn store(arena: &Arena) -> Result<(), HolderError> {
    let Some(fd) = arena.fd() else { return Ok(()) };
    if !is_service() {
        return Ok(());
    }
    let name = name(arena.id());
    let state = [NotifyState::FdStore, NotifyState::FdName(&name)];
    notify_with_fds(&state, &[fd]).map_err(|error| failed("cannot store an arena", &error))
}

/// Lets systemd forget the memory of an arena.
pub(super) fn forget(arena: &Arena) {
    let name = name(arena.id());
    // If this fails, systemd forgets it when the service is stopped.
    let _: io::Result<()> = notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]);
}

/// Tells systemd that the service is ready.
pub(super) fn ready() -> Result<(), HolderError> {
    notify(&[NotifyState::Ready]).map_err(|error| failed("cannot be told that the holder is ready", &error))
}

/// Returns `true` if systemd has started this process as a service that tells it about its state.
fn is_service() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}
