//! Asks the endpoints of other processes.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::endpoint::{Answer, Request};
use super::folder::{Folder, is_dead};
use super::key::Key;
use crate::arena::arena::Arena;
use crate::arena::manifest::ArenaId;
use crate::engine::local::transport::{Connection, Received};
use crate::engine::message::Outgoing;
use crate::error::holder::HolderError;
use crate::os::sys::peer::peer;

/// Time that another process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An arena that a process of this user holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HeldArena {
    pub(super) key: Key,
    /// The id of its content.
    pub id: ArenaId,
    /// What it was made from: a path, or the name that a program chose.
    pub source: String,
    /// The Rust type of its pipeline.
    pub pipeline: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The process that holds it.
    pub pid: u32,
    /// Whether the process keeps it for others, as `rzc hold` does. Otherwise it has it as long as
    /// it uses it.
    pub is_kept: bool,
    /// When the process got it.
    pub since: SystemTime,
}

impl HeldArena {
    /// Makes the process stop keeping the arena for others. The memory returns when no process has
    /// the arena any more.
    ///
    /// # Errors
    /// If the process does not keep it, or cannot be reached.
    pub fn release(&self) -> Result<(), HolderError> {
        let failed = |reason: String| HolderError::Release { pid: self.pid, id: self.id.to_string(), reason };
        let folder = Folder::open()?;
        let of_process = |name: &String| name.starts_with(&format!("{}-", self.pid));
        let endpoint = folder.holders(&self.key).into_iter().find(of_process);
        let endpoint = endpoint.ok_or_else(|| failed("it no longer has the arena".to_owned()))?;
        let received = ask(&folder.socket(&endpoint), &Request::Release(self.key));
        match received.map_err(|error| failed(error.to_string()))?.message {
            Answer::Released => Ok(()),
            Answer::Refused(reason) => Err(failed(reason)),
            other => Err(failed(format!("it answered {other:?}"))),
        }
    }
}

/// Lists the arenas that processes of this user hold: those that are found by content, not those of
/// tickets.
///
/// # Errors
/// If the user's private folder cannot be used.
pub fn held() -> Result<Vec<HeldArena>, HolderError> {
    let held = |(_, answer)| if let Answer::Held(held) = answer { held } else { Vec::new() };
    let mut all: Vec<_> = ask_all(&Request::List)?.into_iter().flat_map(held).collect();
    all.sort_by(|a, b| (&a.source, a.pid).cmp(&(&b.source, b.pid)));
    Ok(all)
}

/// Fetches the arena of a key from a process that holds it. Returns `None` if there is none.
pub(super) fn find(folder: &Folder, key: &Key) -> Option<Arena> {
    for endpoint in folder.holders(key) {
        let socket = folder.socket(&endpoint);
        match fetch(&socket, key) {
            Ok(arena) => return Some(arena),
            // A holder that cannot hand out the arena is not an error: another one may, or the arena
            // is made again.
            Err(_) if is_dead(&socket) || !socket.exists() => folder.remove_endpoint(&endpoint),
            Err(_) => {}
        }
    }
    // Starts the holder if it does not run. Its memory is with systemd then.
    folder.activation().and_then(|socket| fetch(&socket, key).ok())
}

fn fetch(socket: &Path, key: &Key) -> io::Result<Arena> {
    let received = ask(socket, &Request::Find(*key))?;
    match received.message {
        Answer::Here(handle) => {
            Arena::from_ticket(&handle, received.fds).map_err(|error| io::Error::other(error.to_string()))
        }
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// Sends a request to the endpoints of all processes of this user. Returns the sockets and answers of those that
/// have not ended.
pub(super) fn ask_all(request: &Request) -> Result<Vec<(PathBuf, Answer)>, HolderError> {
    let answered = |(socket, answer): (PathBuf, io::Result<Answer>)| Some((socket, answer.ok()?));
    Ok(ask_all_within(request, PATIENCE)?.into_iter().filter_map(answered).collect())
}

/// Does the same, with the time that each process may take. Returns why a process has not answered, too.
pub(super) fn ask_all_within(
    request: &Request,
    patience: Duration,
) -> Result<Vec<(PathBuf, io::Result<Answer>)>, HolderError> {
    let folder = Folder::open()?;
    folder.sweep();
    let answer = |endpoint: String| {
        let socket = folder.socket(&endpoint);
        let received = exchange(&socket, request, &[], Some(patience));
        (socket, received.map(|received| received.message))
    };
    let answers = folder.endpoints().into_iter().map(answer).collect();
    folder.remove_if_empty();
    Ok(answers)
}

/// Sends a request to an endpoint, and receives the answer.
pub(super) fn ask(socket: &Path, request: &Request) -> io::Result<Received<Answer>> {
    exchange(socket, request, &[], Some(PATIENCE))
}

/// Does the same with file descriptors, and waits as long as the other process lives.
pub(super) fn ask_patiently(socket: &Path, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Received<Answer>> {
    exchange(socket, request, fds, None)
}

fn exchange(
    socket: &Path,
    request: &Request,
    fds: &[BorrowedFd<'_>],
    patience: Option<Duration>,
) -> io::Result<Received<Answer>> {
    // A stream has no packet boundaries, but each side sends only one short message, which arrives
    // in one piece.
    let stream = UnixStream::connect(socket)?;
    let user = peer(&stream)?.uid;
    if user != geteuid().as_raw() {
        let reason = format!("{} now belongs to another user, {user}, and is not used", socket.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    stream.set_read_timeout(patience)?;
    let connection = Connection::from_fd(stream.into());
    connection.send(request, &Outgoing::default(), fds)?;
    let received = connection.receive::<Answer>()?;
    received
        .ok_or_else(|| io::Error::other("it closed the connection; it answers only its own user, as long as it runs"))
}
