//! Gives an arena to a process that is not a worker of this one, such as one that received a
//! serialised `ActorWrapper`.
//!
//! The owner listens on a socket in a directory with a random name and mode 0700. A client must run
//! as the same user, which the kernel reports (`SO_PEERCRED`), and present the arena's secret. The
//! answer is the memfd, over SCM_RIGHTS. One thread serves all clients. It starts with the first
//! ticket. The directory is removed when the process exits. The directory of a killed process is
//! removed by the next process that opens a broker and finds no listener there.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::transport::Connection;
use crate::arena::arena::Arena;
use crate::arena::handle::Handle;
use crate::engine::message::Outgoing;
use crate::error::ticket::TicketError;
use crate::os::per_process::PerProcess;
use crate::os::sync::Mutex;
use crate::os::sys::peer::peer;

/// Receive timeout of both sides.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause of the listener after an error.
const PAUSE: Duration = Duration::from_millis(50);
const PREFIX: &str = "ray-zerocopy-";
const SOCKET: &str = "arenas";

/// The address of an arena's owner, and the arena's secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ticket {
    socket: PathBuf,
    owner: u32,
    secret: Secret,
}

type Secret = [u8; 16];

#[derive(Serialize, Deserialize)]
enum Answer {
    Here(Handle),
    Refused(String),
}

/// The arenas that a process offers, and its endpoint.
#[derive(Default)]
struct Broker {
    arenas: Mutex<HashMap<Secret, Arena>>,
    endpoint: Mutex<Option<Endpoint>>,
}

/// The socket on which a process listens.
#[derive(Clone)]
struct Endpoint {
    directory: PathBuf,
    socket: PathBuf,
}

static BROKER: PerProcess<Broker> = PerProcess::new();

/// Offers an arena to every process that has the ticket, until this process ends.
pub(crate) fn offer(arena: &Arena) -> Result<Ticket, TicketError> {
    let arena = &arena.clone().handed_over()?;
    let broker = BROKER.get();
    let endpoint = listening(broker).map_err(|error| offer_failed("the socket", &error))?;
    let mut arenas = broker.arenas.lock();
    let known = arenas.iter().find(|(_, known)| known.id() == arena.id()).map(|(secret, _)| *secret);
    let secret = match known {
        Some(secret) => secret,
        None => {
            let secret = random().map_err(|error| offer_failed("a secret", &error))?;
            arenas.insert(secret, arena.clone());
            secret
        }
    };
    Ok(Ticket { socket: endpoint.socket, owner: std::process::id(), secret })
}

fn offer_failed(what: &str, error: &io::Error) -> TicketError {
    TicketError::Offer { what: what.to_owned(), reason: error.to_string() }
}

/// The endpoint of this process. Opens one if there is none, or if its socket has been removed:
/// `XDG_RUNTIME_DIR` is removed when the user logs out.
fn listening(broker: &'static Broker) -> io::Result<Endpoint> {
    let mut endpoint = broker.endpoint.lock();
    match &*endpoint {
        Some(endpoint) if endpoint.socket.exists() => Ok(endpoint.clone()),
        // Errors are not cached: the next call may succeed.
        _ => Ok(endpoint.insert(open(&broker.arenas)?).clone()),
    }
}

/// Stops offering an arena.
pub(crate) fn withdraw(arena: &Arena) {
    if let Some(broker) = BROKER.existing() {
        broker.arenas.lock().retain(|_, known| known.id() != arena.id());
    }
}

/// Fetches the arena of a ticket from its owner.
pub(crate) fn fetch(ticket: &Ticket) -> Result<Arena, TicketError> {
    let owner = ticket.owner;
    let failed = |error: io::Error| TicketError::Fetch { owner, reason: error.to_string() };
    let refused = |reason: &str| TicketError::Refused { owner, reason: reason.to_owned() };
    // A stream has no packet boundaries, but each side sends only one short message, which arrives
    // in one piece.
    let stream = UnixStream::connect(&ticket.socket).map_err(failed)?;
    let user = peer(&stream).map_err(failed)?.uid;
    if user != geteuid().as_raw() {
        let socket = ticket.socket.display();
        return Err(refused(&format!("{socket} now belongs to another user, {user}, and is not used")));
    }
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let connection = Connection::from_fd(stream.into());
    connection.send(&ticket.secret, &Outgoing::default(), &[]).map_err(failed)?;
    let received = connection.receive::<Answer>().map_err(failed)?;
    let received = received.ok_or_else(|| refused("it closed the connection; it answers only its own user"))?;
    match received.message {
        Answer::Here(handle) => Ok(Arena::from_ticket(&handle, received.fds)?),
        Answer::Refused(reason) => Err(refused(&reason)),
    }
}

fn random() -> io::Result<Secret> {
    let mut secret = Secret::default();
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut secret)?;
    Ok(secret)
}

fn open(arenas: &'static Mutex<HashMap<Secret, Arena>>) -> io::Result<Endpoint> {
    let name: String = random()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{PREFIX}{}-{name}", std::process::id());
    let bases = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).into_iter().chain([std::env::temp_dir()]);
    // The path of a socket has at most 107 bytes, and some folders for temporary files are longer
    // than that.
    let mut bases =
        bases.filter(|base| base.is_dir() && SocketAddr::from_pathname(base.join(&name).join(SOCKET)).is_ok());
    let base = bases.next().unwrap_or_else(|| PathBuf::from("/tmp"));
    sweep(&base);
    let directory = base.join(name);
    DirBuilder::new().mode(0o700).create(&directory)?;
    let socket = directory.join(SOCKET);
    let listener = UnixListener::bind(&socket)?;
    std::thread::Builder::new().name("ray-zerocopy broker".to_owned()).spawn(move || {
        loop {
            match listener.accept() {
                // A client that breaks the protocol harms only itself: the next one is served.
                Ok((stream, _)) => drop(serve(stream, arenas)),
                // Most likely no descriptor is free, and an immediate retry would fail again. The
                // client waits.
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    })?;
    // If this fails, the `sweep` of another process removes the directory.
    let _tidied = crate::os::sys::atexit::at_exit(tidy);
    Ok(Endpoint { directory, socket })
}

extern "C" fn tidy() {
    if let Some(broker) = BROKER.existing()
        && let Some(endpoint) = &*broker.endpoint.lock()
    {
        drop(fs::remove_dir_all(&endpoint.directory));
    }
}

fn serve(stream: UnixStream, arenas: &Mutex<HashMap<Secret, Arena>>) -> io::Result<()> {
    if peer(&stream)?.uid != geteuid().as_raw() {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = Connection::from_fd(OwnedFd::from(stream));
    let Some(asked) = connection.receive::<Secret>()? else { return Ok(()) };
    let arena = arenas.lock().get(&asked.message).cloned();
    match arena {
        Some(arena) => connection.send(&Answer::Here(arena.handle()), &Outgoing::default(), &arena.fds()),
        None => connection.send(
            &Answer::Refused("it does not know the secret; the wrapper may have been withdrawn".to_owned()),
            &Outgoing::default(),
            &[],
        ),
    }
}

/// Removes the directories of processes that were killed.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let ours = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw());
        // Process ids of another container have no meaning here, so the directory is only removed
        // if its socket has no listener.
        let gone = || matches!(UnixStream::connect(entry.path().join(SOCKET)), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        if ours && !Path::new(&format!("/proc/{pid}")).exists() && gone() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
