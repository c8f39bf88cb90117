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
    let mut arenas = Vec::new();
    for (name, fd) in passed {
        let is_socket = fstat(&fd).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Socket);
        if is_socket {
            endpoint.listen(UnixListener::from(fd))?;
        } else {
            arenas.push(restore(endpoint, &name, fd)?);
        }
    }
    Ok(arenas)
}

/// Offers an arena that systemd has stored, and keeps it.
fn restore(endpoint: &'static Endpoint, stored: &str, fd: OwnedFd) -> Result<Arena, HolderError> {
    let arena = Arena::from_memfd(fd).map_err(|error| failed(&format!("has stored `{stored}`"), &error))?;
    let key = Key::of_arena(arena.id());
    endpoint.offer(key, &format!("arena {}", arena.id()), &arena)?;
    endpoint.keep(&key, &arena);
    Ok(arena)
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
