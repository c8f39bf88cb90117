//! The life of a worker process: load programs, run calls, end when the owner does.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::net::SocketType;
use rustix::net::sockopt::{socket_peercred, socket_type};
use rustix::process::{Signal, getpid, getppid, kill_process};

use super::EntryToken;
use super::protocol::{Answer, Failure, Request};
use super::transport::{Connection, Received};
use crate::arena::memory::{Memory, MemoryOutcome};
use crate::arena::{Arena, Handle};
use crate::engine::message::{Incoming, Outgoing};
use crate::panics;
use crate::pipeline::{Copied, LoadError};

/// Set in the environment of a worker. Its value is the version of the protocol.
pub(super) const ENVIRONMENT: &str = "RAY_ZEROCOPY_WORKER";
pub(super) const VERSION: &str = "1";

/// What a program's loader gets.
pub(crate) struct LoadRequest {
    pub arena: Arena,
    pub device: String,
    pub strict: bool,
}

/// What a program's loader gives.
pub(crate) struct LoadedProgram {
    pub served: Box<dyn Served>,
    pub copied: Vec<Copied>,
    pub decoding: Duration,
}

/// A loaded program: the pipeline behind it is known to the wrappers only.
pub(crate) trait Served {
    /// Runs a method.
    fn call(&mut self, handler: &EntryToken, arguments: Incoming) -> Result<Outgoing, Failure>;
}

/// Loads a program in a worker. Sent as a token.
pub(crate) type Loader = fn(LoadRequest) -> Result<LoadedProgram, LoadError>;

/// The connection to the owner, if this process was started as a worker.
///
/// The environment alone proves nothing, since a worker's own children inherit it. A worker's standard input is a
/// socket whose other end is held by its parent.
pub(super) fn socket() -> Option<Connection> {
    if std::env::var_os(ENVIRONMENT)? != VERSION {
        return None;
    }
    let stdin = std::io::stdin();
    let peer = socket_peercred(&stdin).ok()?;
    if socket_type(&stdin).ok()? != SocketType::SEQPACKET || Some(peer.pid) != getppid() {
        return None;
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).ok()?;
    // From here on, nobody can take standard input for the socket: neither user code nor a child.
    let null = std::fs::File::open("/dev/null").ok()?;
    rustix::stdio::dup2_stdin(&null).ok()?;
    Some(Connection::from_fd(socket))
}

/// For [`init`](crate::init): becomes a worker if the constructor could not, on whatever platform that may be.
pub(crate) fn fallback() {
    if let Some(socket) = socket() {
        run(socket)
    }
}

/// Serves until the owner says so, or is gone.
pub(super) fn run(connection: Connection) -> ! {
    let (sender, requests) = mpsc::channel();
    let connection = std::sync::Arc::new(connection);
    let reader = std::sync::Arc::clone(&connection);
    let spawned = std::thread::Builder::new().name("ray-zerocopy reader".to_owned()).spawn(move || {
        loop {
            match reader.receive::<Request>() {
                Ok(Some(request)) => {
                    if sender.send(request).is_err() {
                        die();
                    }
                }
                // The owner is gone. A method may be running, and nobody waits for it.
                Ok(None) => die(),
                // The owner sees a dead worker, and the reason has no other way out.
                Err(error) => {
                    eprintln!("ray-zerocopy worker {}: a request could not be received: {error}", std::process::id());
                    die()
                }
            }
        }
    });
    if spawned.is_err() || answer(&connection, &Answer::Ready, &Outgoing::default()).is_err() {
        die();
    }
    let mut programs = HashMap::new();
    for request in requests {
        if serve(&connection, &mut programs, request).is_err() {
            die();
        }
    }
    die()
}

/// Ends this process at once, whatever its other threads do.
fn die() -> ! {
    let _dead = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

type Programs = HashMap<u64, Box<dyn Served>>;

fn serve(connection: &Connection, programs: &mut Programs, request: Received<Request>) -> std::io::Result<()> {
    let nothing = Outgoing::default();
    match request.message {
        Request::Load { key, loader, device, strict, memory, arena } => {
            let begun = Instant::now();
            match load(&arena, request.fds, &loader, device, strict, memory) {
                Ok((LoadedProgram { served, copied, decoding }, memory)) => {
                    programs.insert(key, served);
                    let took = begun.elapsed().saturating_sub(memory.took);
                    answer(connection, &Answer::Loaded { copied, took, decoding, memory }, &nothing)
                }
                Err(error) => answer(connection, &Answer::NotLoaded(error), &nothing),
            }
        }
        Request::Call { key, handler } => {
            let result = match programs.get_mut(&key) {
                Some(program) => program.call(&handler, request.payload),
                None => Err(Failure::Wire {
                    what: "the call".to_owned(),
                    reason: "the worker has not loaded the pipeline".to_owned(),
                }),
            };
            // What a method printed is out before its result is, because the owner may end, and its workers with it, as
            // soon as it has the result. A closed standard output is the owner's affair.
            drop(std::io::stdout().flush());
            match result {
                Ok(result) => answer(connection, &Answer::Done, &result).or_else(|error| {
                    let failure = Failure::Wire { what: "the result".to_owned(), reason: error.to_string() };
                    answer(connection, &Answer::Failed(failure), &nothing)
                }),
                Err(failure) => answer(connection, &Answer::Failed(failure), &nothing),
            }
        }
        Request::Forget { key } => {
            let forgotten = programs.remove(&key);
            // A panic of the pipeline's `drop` has been printed, and harms no other program.
            drop(panics::caught(|| drop(forgotten)));
            Ok(())
        }
        Request::ShutDown => {
            drop(panics::caught(|| programs.clear()));
            drop(std::io::stdout().flush());
            std::process::exit(0)
        }
    }
}

fn answer(connection: &Connection, answer: &Answer, payload: &Outgoing) -> std::io::Result<()> {
    connection.send(answer, payload, &[])
}

fn load(
    arena: &Handle,
    fds: Vec<OwnedFd>,
    loader: &EntryToken,
    device: String,
    strict: bool,
    memory: Memory,
) -> Result<(LoadedProgram, MemoryOutcome), LoadError> {
    let no_code = |error: super::sys::entry::EntryError| LoadError::Rebuild {
        pipeline: "the pipeline".to_owned(),
        reason: error.to_string(),
    };
    let arena = Arena::from_handle(arena, fds)?;
    let load: Loader = loader.resolve().map_err(no_code)?;
    let pipeline = arena.pipeline().to_owned();
    let memory = arena.follow(memory);
    // User code runs here too: `Deserialize` of the copied fields.
    let loaded = panics::caught(|| load(LoadRequest { arena, device, strict }))
        .unwrap_or_else(|reason| Err(LoadError::Rebuild { pipeline, reason: format!("it panicked: {reason}") }))?;
    Ok((loaded, memory))
}
