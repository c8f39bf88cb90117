//! Handing an arena to a process that is not a worker of ours, such as one that got a serialised `ActorWrapper`.
//!
//! The owner listens on a socket in a private directory, whose name is random and which only its user can enter. Who
//! asks has to be of the same user (the kernel says who it is) and to know the arena's secret; the answer is the memfd,
//! over SCM_RIGHTS. A thread serves it, started with the first ticket. The directory goes when the process exits; that of a
//! killed process, when the next one finds that nobody listens there.

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::lock;
use super::transport::Connection;
use crate::arena::arena::{Arena, Handle};
use crate::engine::message::Outgoing;
use crate::error::ticket::TicketError;
use crate::os::per_process::PerProcess;
use crate::os::sys::peer::peer;

/// How long the two sides of an exchange wait for each other.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the listener waits after an error.
const PAUSE: Duration = Duration::from_millis(50);
const PREFIX: &str = "ray-zerocopy-";
const SOCKET: &str = "arenas";

/// Where to ask for an arena, and the word that opens.
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

/// What a process offers, and where.
#[derive(Default)]
struct Broker {
    arenas: Mutex<HashMap<Secret, Arena>>,
    place: Mutex<Option<Listener>>,
}

/// Where a process listens.
#[derive(Clone)]
struct Listener {
    directory: PathBuf,
    socket: PathBuf,
}

static BROKER: PerProcess<Broker> = PerProcess::new();

/// Offers an arena to whoever has the ticket, for as long as this process lives.
pub(crate) fn offer(arena: &Arena) -> Result<Ticket, TicketError> {
    let arena = &arena.clone().handed_over()?;
    let broker = BROKER.get();
    let place = listening(broker).map_err(|error| offer_failed("the socket", &error))?;
    let mut arenas = lock(&broker.arenas);
    let known = arenas.iter().find(|(_, known)| known.id() == arena.id()).map(|(secret, _)| *secret);
    let secret = match known {
        Some(secret) => secret,
        None => {
            let secret = random().map_err(|error| offer_failed("a secret", &error))?;
            arenas.insert(secret, arena.clone());
            secret
        }
    };
    Ok(Ticket { socket: place.socket, owner: std::process::id(), secret })
}

fn offer_failed(what: &str, error: &io::Error) -> TicketError {
    TicketError::Offer { what: what.to_owned(), reason: error.to_string() }
}

/// Where this process listens. If it does not, or its socket has been removed since (a user who logs out takes `XDG_RUNTIME_DIR`
/// away), it begins to.
fn listening(broker: &'static Broker) -> io::Result<Listener> {
    let mut place = lock(&broker.place);
    match &*place {
        Some(place) if place.socket.exists() => Ok(place.clone()),
        // What could not be opened is tried again by the next who asks: what was missing may be there by then.
        _ => Ok(place.insert(open(&broker.arenas)?).clone()),
    }
}

/// Stops offering an arena.
pub(crate) fn withdraw(arena: &Arena) {
    if let Some(broker) = BROKER.existing() {
        lock(&broker.arenas).retain(|_, known| known.id() != arena.id());
    }
}

/// Fetches the arena that the ticket is for.
pub(crate) fn fetch(ticket: &Ticket) -> Result<Arena, TicketError> {
    let owner = ticket.owner;
    let failed = |error: io::Error| TicketError::Fetch { owner, reason: error.to_string() };
    let refused = |reason: &str| TicketError::Refused { owner, reason: reason.to_owned() };
    // A stream has no packets, but each side says one thing only, and it is short: it arrives as it was sent.
    let stream = UnixStream::connect(&ticket.socket).map_err(failed)?;
    let user = peer(&stream).map_err(failed)?.uid;
    if user != geteuid().as_raw() {
        let socket = ticket.socket.display();
        return Err(refused(&format!("{socket} is of another user now, number {user}, who is not asked")));
    }
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let connection = Connection::from_fd(stream.into());
    connection.send(&ticket.secret, &Outgoing::default(), &[]).map_err(failed)?;
    let received = connection.receive::<Answer>().map_err(failed)?;
    let received = received.ok_or_else(|| refused("it hung up; it answers only processes of its own user"))?;
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

fn open(arenas: &'static Mutex<HashMap<Secret, Arena>>) -> io::Result<Listener> {
    let name: String = random()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{PREFIX}{}-{name}", std::process::id());
    let bases = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).into_iter().chain([std::env::temp_dir()]);
    // The path of a socket has at most 107 bytes, and some folders for temporary files are longer than that.
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
                // An asker that misbehaves hurts only itself: the next one is served.
                Ok((stream, _)) => drop(serve(stream, arenas)),
                // No descriptor is free, most likely, and the asker goes on waiting: to try again at once would be the same.
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    })?;
    // If it cannot be, the directory is left to the next process's `sweep`.
    let _tidied = crate::os::sys::atexit::at_exit(tidy);
    Ok(Listener { directory, socket })
}

extern "C" fn tidy() {
    if let Some(broker) = BROKER.existing()
        && let Some(place) = &*lock(&broker.place)
    {
        drop(fs::remove_dir_all(&place.directory));
    }
}

fn serve(stream: UnixStream, arenas: &Mutex<HashMap<Secret, Arena>>) -> io::Result<()> {
    if peer(&stream)?.uid != geteuid().as_raw() {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let connection = Connection::from_fd(OwnedFd::from(stream));
    let Some(asked) = connection.receive::<Secret>()? else { return Ok(()) };
    let arena = lock(arenas).get(&asked.message).cloned();
    match arena {
        Some(arena) => connection.send(&Answer::Here(arena.handle()), &Outgoing::default(), &arena.fds()),
        None => connection.send(
            &Answer::Refused("it does not know the secret; the wrapper may have been withdrawn".to_owned()),
            &Outgoing::default(),
            &[],
        ),
    }
}

/// Removes what processes have left behind that were killed.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let ours = entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == geteuid().as_raw());
        // A process of another container has another number here: whether somebody listens is what counts.
        let gone = || matches!(UnixStream::connect(entry.path().join(SOCKET)), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        if ours && !Path::new(&format!("/proc/{pid}")).exists() && gone() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
