//! The endpoint of this process: the socket on which it hands arenas to other processes.
//!
//! One thread serves all clients. It starts when this process first has something to hand out. A
//! client must run as the same user, which the kernel reports. The answer is the memfd, over
//! SCM_RIGHTS.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::client::HeldArena;
use super::folder::Folder;
use super::follow::{Follower, Registration};
use super::key::Key;
use super::status::MakeReport;
use super::ticket::Secret;
use crate::arena::arena::{Arena, WeakArena};
use crate::arena::handle::Handle;
use crate::arena::manifest::ArenaId;
use crate::engine::local::transport::{Connection, Received};
use crate::engine::message::Outgoing;
use crate::error::holder::HolderError;
#[cfg(target_os = "linux")]
use crate::gpu::CopyKeeper;
use crate::os::per_process::PerProcess;
use crate::os::sync::Mutex;
use crate::os::sys::peer::peer;
use crate::os::sys::process_id::process_id;

/// Time that a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause of the listener after an error.
const PAUSE: Duration = Duration::from_millis(50);
/// Number of attempts to create a socket in a folder that another process may remove meanwhile.
const ATTEMPTS: usize = 10;

/// Client → endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The arena of a ticket.
    Ticket(Secret),
    /// The arena of a key.
    Find(Key),
    /// What the process holds.
    List,
    /// The process no longer keeps the arena of a key for others.
    Release(Key),
    /// Which names the process follows.
    Followers,
    /// The status report of the process.
    Status,
    /// New weights for a name. The file descriptors of the arena are sent with the request.
    Swap { name: String, arena: Handle },
}

/// Endpoint → client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The arena, whose file descriptors are sent with the answer.
    Here(Handle),
    /// Why the process does not send it.
    Refused(String),
    Held(Vec<HeldArena>),
    Released,
    Followers(Vec<Follower>),
    /// The report, or why there is none. `None` if the process has none for others.
    Status(Option<Result<String, String>>),
    /// What those that follow the name in the process have done with the weights.
    Swapped(Vec<Result<String, String>>),
}

/// What this process hands out, and the socket on which it does so.
#[derive(Default)]
pub(super) struct Endpoint {
    pub(super) tickets: Mutex<HashMap<Secret, Arena>>,
    offers: Mutex<HashMap<Key, Offer>>,
    pub(super) followers: Mutex<Vec<Arc<Registration>>>,
    /// Makes the status report.
    pub(super) report: Mutex<Option<MakeReport>>,
    listening: Mutex<Option<Listening>>,
}

/// An arena that is found by its key.
struct Offer {
    arena: WeakArena,
    /// What it was made from.
    source: String,
    /// The arena itself, if this process keeps it for others.
    kept: Option<Arena>,
    /// Keeps the copies of the arena on GPUs, if this process keeps the arena.
    #[cfg(target_os = "linux")]
    copies: Option<CopyKeeper>,
    since: SystemTime,
    /// When it was last handed out.
    used: Instant,
}

/// The socket on which a process listens.
#[derive(Debug, Clone)]
pub(super) struct Listening {
    pub(super) folder: Folder,
    /// The socket's name in the folder.
    pub(super) name: String,
}

static ENDPOINT: PerProcess<Endpoint> = PerProcess::new();

/// The endpoint of this process. It does not listen before [`listening`](Endpoint::listening).
pub(super) fn endpoint() -> &'static Endpoint {
    ENDPOINT.get()
}

/// The endpoint of this process, if it has been used.
pub(super) fn existing() -> Option<&'static Endpoint> {
    ENDPOINT.existing()
}

impl Endpoint {
    /// Returns the socket of this process. Opens one if there is none, or if it has been removed:
    /// `XDG_RUNTIME_DIR` is removed when the user logs out.
    pub(super) fn listening(&'static self) -> Result<Listening, HolderError> {
        let mut listening = self.listening.lock();
        match &*listening {
            Some(listening) if listening.folder.socket(&listening.name).exists() => Ok(listening.clone()),
            // Errors are not cached: the next call may succeed.
            _ => Ok(listening.insert(open()?).clone()),
        }
    }

    /// Offers an arena to the processes that ask for its key, as long as this process has it. Returns it, or the
    /// one that this process offers under the key already.
    pub(super) fn offer(&'static self, key: Key, source: &str, arena: &Arena) -> Result<Arena, HolderError> {
        let Listening { folder, name } = self.listening()?;
        let (since, used) = (SystemTime::now(), Instant::now());
        let offer = Offer {
            arena: arena.downgrade(),
            source: source.to_owned(),
            kept: None,
            #[cfg(target_os = "linux")]
            copies: None,
            since,
            used,
        };
        let offered = {
            let mut offers = self.offers.lock();
            match offers.get_mut(&key).and_then(|known| Some((known.arena.upgrade()?, known))) {
                // It may be kept for others, and have another name since.
                Some((own, known)) => {
                    known.source = offer.source;
                    own
                }
                None => {
                    offers.insert(key, offer);
                    arena.on_drop(Withdrawal { key, process: process_id() });
                    arena.clone()
                }
            }
        };
        // It is not withdrawn meanwhile: this function has a handle of it.
        let path = folder.offer(&key, &name);
        File::create(&path).map_err(|error| HolderError::folder(&path, &error))?;
        Ok(offered)
    }

    /// Returns the arena of a key, if this process has it.
    pub(super) fn own(&self, key: &Key) -> Option<Arena> {
        self.offers.lock().get(key)?.arena.upgrade()
    }

    /// Keeps the arena of a key until [`release`](Self::release). It must be offered.
    pub(super) fn keep(&self, key: &Key, arena: &Arena) {
        if let Some(offer) = self.offers.lock().get_mut(key) {
            offer.kept = Some(arena.clone());
            // Without it, copies on GPUs exist as long as processes use them.
            #[cfg(target_os = "linux")]
            if offer.copies.is_none() {
                offer.copies = CopyKeeper::start(&arena.id().0).ok();
            }
        }
    }

    /// Stops keeping the arena of a key. Returns `false` if it is not kept.
    ///
    /// # Errors
    /// If a variant that is kept borrows from it.
    pub(super) fn release(&self, key: &Key) -> Result<bool, String> {
        let kept = {
            let mut offers = self.offers.lock();
            let Some(id) = offers.get(key).and_then(|offer| Some(offer.kept.as_ref()?.id())) else { return Ok(false) };
            let variant = offers.values().filter_map(|offer| offer.kept.as_ref()).find(|kept| borrows(kept, id));
            if let Some(variant) = variant {
                return Err(format!("it also keeps arena {}, a variant of it: drop that first", variant.id()));
            }
            offers.get_mut(key).and_then(|offer| {
                #[cfg(target_os = "linux")]
                drop(offer.copies.take());
                offer.kept.take()
            })
        };
        // Dropped without the lock, which its destructor takes.
        if let Some(arena) = &kept {
            super::service::forget(arena);
        }
        Ok(kept.is_some())
    }

    /// Returns `true` if an arena with this content is kept.
    pub(super) fn keeps(&self, id: ArenaId) -> bool {
        self.offers.lock().values().any(|offer| offer.kept.as_ref().is_some_and(|kept| kept.id() == id))
    }

    /// The arenas that are kept, each with its own bytes and the time since its last use.
    pub(super) fn kept(&self) -> Vec<(Key, u64, Instant)> {
        let offers = self.offers.lock();
        offers.iter().filter_map(|(key, offer)| Some((*key, offer.kept.as_ref()?.own_bytes(), offer.used))).collect()
    }

    /// What this process holds.
    pub(super) fn held(&self) -> Vec<HeldArena> {
        let offers: Vec<_> = {
            let offers = self.offers.lock();
            let held = |(key, offer): (&Key, &Offer)| {
                Some((*key, offer.arena.upgrade()?, offer.source.clone(), offer.kept.is_some(), offer.since))
            };
            offers.iter().filter_map(held).collect()
        };
        // The last handle of an arena may be dropped here, which takes the lock.
        let held = |(key, arena, source, is_kept, since): (Key, Arena, String, bool, SystemTime)| HeldArena {
            key,
            id: arena.id(),
            source,
            pipeline: arena.pipeline().to_owned(),
            bytes: arena.size_bytes(),
            pid: std::process::id(),
            is_kept,
            since,
        };
        offers.into_iter().map(held).collect()
    }

    /// Serves the clients of a socket, on a thread of its own.
    pub(super) fn listen(&'static self, listener: UnixListener) -> Result<(), HolderError> {
        let thread = std::thread::Builder::new().name("ray-zerocopy broker".to_owned());
        let spawned = thread.spawn(move || {
            loop {
                match listener.accept() {
                    // A client that breaks the protocol harms only itself: the next one is served.
                    Ok((stream, _)) => drop(self.serve(stream)),
                    // Most likely no descriptor is free, and an immediate retry would fail again. The
                    // client waits.
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        });
        let failed = |error| HolderError::Endpoint { reason: format!("its thread cannot be started: {error}") };
        spawned.map(drop).map_err(failed)
    }

    fn serve(&'static self, stream: UnixStream) -> io::Result<()> {
        if peer(&stream)?.uid != geteuid().as_raw() {
            return Ok(());
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        let connection = Connection::from_fd(OwnedFd::from(stream));
        let Some(asked) = connection.receive::<Request>()? else { return Ok(()) };
        let arena = match &asked.message {
            Request::Ticket(secret) => self.tickets.lock().get(secret).cloned(),
            Request::Find(key) => self.hand_out(key),
            Request::List => return answer(&connection, &Answer::Held(self.held())),
            Request::Followers => return answer(&connection, &Answer::Followers(self.following())),
            Request::Status => {
                let report = *self.report.lock();
                return answer(&connection, &Answer::Status(report.and_then(|make| make())));
            }
            Request::Swap { .. } => return self.swap_on_thread(connection, asked),
            Request::Release(key) => {
                return answer(
                    &connection,
                    &match self.release(key) {
                        Ok(true) => Answer::Released,
                        Ok(false) => Answer::Refused("it does not keep this arena for others".to_owned()),
                        Err(reason) => Answer::Refused(reason),
                    },
                );
            }
        };
        let Some(arena) = arena else {
            let reason = match asked.message {
                Request::Ticket(_) => "it does not know the secret; the wrapper may have been withdrawn",
                _ => "it no longer has the arena",
            };
            return answer(&connection, &Answer::Refused(reason.to_owned()));
        };
        connection.send(&Answer::Here(arena.handle()), &Outgoing::default(), &arena.fds())
    }

    /// Answers a request for a swap, which may wait for long calls, on a thread of its own.
    fn swap_on_thread(&'static self, connection: Connection, asked: Received<Request>) -> io::Result<()> {
        let Request::Swap { name, arena } = asked.message else { return Ok(()) };
        let (connection, fds) = (Arc::new(connection), asked.fds);
        let answering = Arc::clone(&connection);
        let swap = move || {
            // A client that has gone does not need the answer.
            let _ = answer(&answering, &self.swap(&name, &arena, fds));
        };
        let spawned = std::thread::Builder::new().name("ray-zerocopy follow".to_owned()).spawn(swap);
        match spawned {
            Ok(_) => Ok(()),
            Err(error) => answer(&connection, &Answer::Refused(format!("its thread cannot be started: {error}"))),
        }
    }

    fn hand_out(&self, key: &Key) -> Option<Arena> {
        let mut offers = self.offers.lock();
        let offer = offers.get_mut(key)?;
        offer.used = Instant::now();
        offer.arena.upgrade()
    }
}

/// Returns `true` if an arena borrows from the one with this id.
fn borrows(arena: &Arena, id: ArenaId) -> bool {
    arena.bases().any(|(base, _)| base == id)
}

fn answer(connection: &Connection, answer: &Answer) -> io::Result<()> {
    connection.send(answer, &Outgoing::default(), &[])
}

/// Withdraws the offer of an arena when the last handle of the arena is dropped in this process.
struct Withdrawal {
    key: Key,
    /// A fork has a copy of this, and no endpoint.
    process: u32,
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        let Some(endpoint) = existing().filter(|_| self.process == process_id()) else { return };
        let mut offers = endpoint.offers.lock();
        // The key may be offered with another arena since.
        if offers.get(&self.key).is_some_and(|offer| offer.arena.is_gone()) {
            offers.remove(&self.key);
            if let Some(Listening { folder, name }) = &*endpoint.listening.lock() {
                let _ = fs::remove_file(folder.offer(&self.key, name));
            }
        }
    }
}

fn open() -> Result<Listening, HolderError> {
    let random = super::ticket::random().map_err(|error| HolderError::Endpoint { reason: error.to_string() })?;
    let random: String = random[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{}-{random}", std::process::id());
    let (folder, listener) = bind(&name)?;
    folder.sweep();
    endpoint().listen(listener)?;
    // If this fails, the `sweep` of another process removes the files.
    let _tidied = crate::os::sys::atexit::at_exit(tidy);
    Ok(Listening { folder, name })
}

/// Creates a socket in the folder. It gets its name when this process listens on it, so that others
/// do not take it for that of a killed process.
fn bind(name: &str) -> Result<(Folder, UnixListener), HolderError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let folder = Folder::open()?;
        let hidden = folder.socket(&format!(".{name}"));
        let bound = UnixListener::bind(&hidden).and_then(|listener| {
            fs::rename(&hidden, folder.socket(name)).inspect_err(|_| drop(fs::remove_file(&hidden)))?;
            Ok(listener)
        });
        match bound {
            Ok(listener) => return Ok((folder, listener)),
            // The last other process has removed the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
            Err(error) => return Err(HolderError::folder(&hidden, &error)),
        }
    }
}

extern "C" fn tidy() {
    let Some(endpoint) = existing() else { return };
    if let Some(Listening { folder, name }) = &*endpoint.listening.lock() {
        folder.remove_endpoint(name);
        folder.remove_if_empty();
    }
}
