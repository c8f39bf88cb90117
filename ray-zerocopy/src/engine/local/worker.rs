//! The life of a worker process: load programs, run calls, end when the owner does.

use crate::engine::served::LoadRequest;
use crate::engine::served::LoadedProgram;
use crate::engine::served::Loader;
use crate::engine::served::Served;
use crate::os::sys::{atexit, malloc, peer, privileges};
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{Signal, geteuid, getpid, getppid, kill_process};

use super::protocol::{Answer, Request};
use super::transport::{Connection, Event, Received};
use crate::arena::arena::Arena;
use crate::arena::handle::Handle;
use crate::arena::memory::policy::MemoryPolicy;
use crate::arena::memory::status::MemoryStatus;
use crate::engine::message::Outgoing;
use crate::engine::served::MethodError;
use crate::engine::sys::entry::FnToken;
use crate::error::load::LoadError;
use crate::os::limits;
use crate::panics;

/// Set in the environment of a worker. Its value is the version of the protocol.
pub(crate) const ENVIRONMENT: &str = "RAY_ZEROCOPY_WORKER";
pub(crate) const VERSION: &str = "3";
/// What the thread needs that waits for the owner's end, and twice that.
const WATCHER_STACK: usize = 64 * 1024;

/// What a process has that was started as a worker.
pub(crate) struct StartedAsWorker {
    connection: Connection,
    /// The process that started this one.
    owner: i32,
}

/// The status of a process that was started as a worker and cannot be one. `EX_UNAVAILABLE` of
/// `sysexits.h`.
const UNFIT: i32 = 69;

/// Whether the environment says that this process is a worker, which a worker's own children
/// inherit.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(ENVIRONMENT).is_some()
}

/// The connection to the owner, if this process was started as a worker.
///
/// The environment alone proves nothing, since a worker's own children inherit it. A worker's
/// standard input is a socket of packets, and that decides: with one, this process is a worker or
/// nothing, so that whatever is wrong ends it.
pub(crate) fn claim() -> Option<StartedAsWorker> {
    let version = std::env::var_os(ENVIRONMENT)?;
    let stdin = std::io::stdin();
    if socket_type(&stdin) != Ok(SocketType::SEQPACKET) {
        return None;
    }
    if privileges::privileged() {
        give_up(
            "this program has privileges that its user has not (setuid, setgid or file capabilities), so that it takes no orders",
        );
    }
    if version != VERSION {
        let version = version.display();
        give_up(&format!(
            "the program that started it has another version of ray-zerocopy: they talk in version {version} of the protocol, \
             this one in {VERSION}"
        ));
    }
    let owner = match peer::peer(&stdin) {
        Ok(peer) if peer.uid == geteuid().as_raw() => peer.pid,
        Ok(peer) => give_up(&format!("the other end of its socket is of user {}, not of its own", peer.uid)),
        Err(error) => give_up(&format!("getsockopt(SO_PEERCRED): {error}")),
    };
    if parent() != owner {
        if parent() == 1 || !exists(owner) {
            // The owner ended while this process started. The user does not need to see that as a failure.
            atexit::at_once(UNFIT);
        }
        give_up(&format!(
            "it was started by process {}, and its socket is of process {owner}: a script around a program has to `exec` it",
            parent()
        ));
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)
        .unwrap_or_else(|error| give_up(&limits::named("fcntl(F_DUPFD_CLOEXEC)", &error.into()).to_string()));
    // From here on, neither user code nor a child can take standard input for the socket.
    if let Err(error) = empty().and_then(|empty| Ok(rustix::stdio::dup2_stdin(&empty)?)) {
        give_up(&limits::named("the standard input cannot be emptied", &error).to_string());
    }
    Some(StartedAsWorker { connection: Connection::from_fd(socket), owner })
}

/// Ends this process, which was started as a worker and cannot be one: with the reason on the
/// standard error, which is the owner's.
fn give_up(reason: &str) -> ! {
    eprintln!("ray-zerocopy worker {}: it cannot work: {reason}", std::process::id());
    atexit::at_once(UNFIT)
}

/// The parent of this process: 0 for one outside of this process's pid namespace.
fn parent() -> i32 {
    getppid().map_or(0, |pid| pid.as_raw_nonzero().get())
}

/// Whether there is a process of this number.
fn exists(pid: i32) -> bool {
    let asked = rustix::process::Pid::from_raw(pid).map(rustix::process::test_kill_process);
    !matches!(asked, Some(Err(rustix::io::Errno::SRCH)))
}

/// Something to read that is empty: `/dev/null`, or where that is missing, the end of a pipe.
fn empty() -> std::io::Result<OwnedFd> {
    match std::fs::File::open("/dev/null") {
        Ok(file) => Ok(file.into()),
        Err(_) => Ok(std::io::pipe()?.0.into()),
    }
}

/// For [`init`](crate::init): becomes a worker if the constructor could not, on whatever platform
/// that may be.
pub(crate) fn fallback() {
    if let Some(claimed) = claim() {
        run(claimed)
    }
}

/// Serves until the owner says so, or is gone.
pub(crate) fn run(StartedAsWorker { connection, owner }: StartedAsWorker) -> ! {
    malloc::keep();
    let connection = Arc::new(connection);
    last_words(&connection);
    let ready = match watch(&connection, owner) {
        Ok(()) => Answer::Ready,
        Err(reason) => Answer::NotReady(reason),
    };
    if answer(&connection, 0, &ready, &Outgoing::default()).is_err() {
        die();
    }
    let mut programs = HashMap::new();
    loop {
        // Waited for first, and then received. A process that is killed while it waits leaves the
        // request where it is, so that the owner knows that it was not received; in the middle of
        // receiving, the kernel still takes it.
        let received = connection.wait(None).and_then(|_| connection.next::<(u64, Request)>());
        let served = match received {
            Ok(Event::Message(request)) => serve(&connection, &mut programs, request),
            Ok(Event::Unreadable(error)) => {
                answer(&connection, 0, &Answer::Unreadable(error.to_string()), &Outgoing::default())
            }
            Ok(Event::Quiet) => Ok(()),
            Ok(Event::Gone(_)) => die(),
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            // The owner sees a dead worker, and the reason has no other way out; unless the owner
            // has hung up.
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                eprintln!("ray-zerocopy worker {}: its socket failed: {error}", std::process::id());
            }
            die();
        }
    }
}

/// Sees to it that this process ends with its owner, even in the middle of a method.
///
/// The kernel kills it when the owner's thread ends that started it, even if this process is
/// stopped; but it forgets that if user code changes the user of this process. So a thread looks
/// whether the owner hangs up, too. That alone would not do: a fork of the owner holds the owner's
/// end of the socket.
fn watch(connection: &Arc<Connection>, owner: i32) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("prctl(PR_SET_PDEATHSIG): {error}"))?;
    // An owner that ended before has sent no signal.
    if parent() != owner {
        die();
    }
    let connection = Arc::clone(connection);
    let watcher = std::thread::Builder::new().name("ray-zerocopy watcher".to_owned()).stack_size(WATCHER_STACK);
    let watcher = watcher.spawn(move || {
        // After an error, the end of the owner would go unnoticed.
        drop(connection.wait_for_the_end());
        die()
    });
    watcher.map(drop).map_err(|error| limits::named("no thread could be started", &error).to_string())
}

/// Tells the owner of each panic, before anything else comes of it. A panic that aborts the process
/// leaves nothing else behind: one in a program built with `panic = "abort"`, one while another
/// unwinds, or one in code that cannot unwind.
fn last_words(connection: &Arc<Connection>) {
    let connection = Arc::clone(connection);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let message = panics::message(info.payload());
        let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
        // The owner reads it if this process dies. If the socket is full, it has others to read.
        let _full = connection.try_send(&(0_u64, Answer::Panics(format!("{message}{place}"))));
        before(info);
    }));
}

/// Ends this process at once, whatever its other threads do.
fn die() -> ! {
    let _dead = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

type Programs = HashMap<u64, Box<dyn Served>>;

fn serve(connection: &Connection, programs: &mut Programs, request: Received<(u64, Request)>) -> std::io::Result<()> {
    let nothing = Outgoing::default();
    let (serial, message) = request.message;
    match message {
        Request::Load { key, loader, device, strict, memory, arena } => {
            let begun = Instant::now();
            match load(&arena, request.fds, &loader, device, strict, memory) {
                Ok((LoadedProgram { served, copied, decoding }, memory)) => {
                    programs.insert(key, served);
                    let took = begun.elapsed().saturating_sub(memory.took);
                    answer(connection, serial, &Answer::Loaded { copied, took, decoding, memory }, &nothing)
                }
                Err(error) => answer(connection, serial, &Answer::NotLoaded(error), &nothing),
            }
        }
        Request::Call { key, handler } => {
            let result = match programs.get_mut(&key) {
                Some(program) => program.call(&handler, request.payload),
                None => Err(MethodError::Wire {
                    what: "the call".to_owned(),
                    reason: "the worker has not loaded the pipeline".to_owned(),
                }),
            };
            // What a method printed is out before its result is, because the owner may end, and its
            // workers with it, as soon as it has the result. A closed standard output is the
            // owner's affair.
            drop(std::io::stdout().flush());
            match result {
                Ok(result) => answer(connection, serial, &Answer::Done, &result).or_else(|error| {
                    let failure = MethodError::Wire { what: "the result".to_owned(), reason: error.to_string() };
                    answer(connection, serial, &Answer::Failed(failure), &nothing)
                }),
                Err(failure) => answer(connection, serial, &Answer::Failed(failure), &nothing),
            }
        }
        Request::Forget { key } => {
            let forgotten = programs.remove(&key);
            // A panic of the pipeline's `drop` has been printed, and harms no other program.
            drop(panics::caught(|| drop(forgotten)));
            answer(connection, serial, &Answer::Forgotten, &nothing)
        }
        Request::ShutDown => {
            drop(panics::caught(|| programs.clear()));
            drop(std::io::stdout().flush());
            std::process::exit(0)
        }
    }
}

fn answer(connection: &Connection, serial: u64, answer: &Answer, payload: &Outgoing) -> std::io::Result<()> {
    connection.send(&(serial, answer), payload, &[])
}

fn load(
    arena: &Handle,
    fds: Vec<OwnedFd>,
    loader: &FnToken,
    device: String,
    strict: bool,
    memory: MemoryPolicy,
) -> Result<(LoadedProgram, MemoryStatus), LoadError> {
    let no_code = |error: crate::engine::sys::entry::EntryError| LoadError::Rebuild {
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

#[cfg(test)]
mod tests {
    use burn::tensor::Bytes;
    use rustix::net::{SendFlags, send};

    use super::super::process::Process;
    use super::super::protocol::{Answer, Request};
    use super::super::transport::Connection;
    use crate::engine::message::Outgoing;
    use crate::engine::settings::Settings;

    fn answer(connection: &Connection) -> (u64, Answer) {
        connection.receive().unwrap().expect("the worker lives").message
    }

    #[test]
    fn worker_answers_unreadable_requests() {
        let (mut process, connection) =
            Process::start(0, &Settings { threads: Some(1), ..Settings::default() }, || true).unwrap();
        let number = u64::to_le_bytes;
        let claims = [
            // A frame in a memfd that is not there, and an unknown kind of frame.
            vec![1],
            vec![9, 9, 9],
            // Endless messages and segments.
            [&[0][..], &number(u64::MAX), &number(0)].concat(),
            [&[0][..], &number(0), &number(u64::MAX)].concat(),
            [&[0][..], &number(1), &number(1), &number(u64::MAX - 63), &[0xc0]].concat(),
            // MessagePack that claims four thousand million keys, and a request that there is not.
            [&[0][..], &number(5), &number(0), &[0xdf, 0xff, 0xff, 0xff, 0xff]].concat(),
            [&[0][..], &number(2), &number(0), &[0x92, 0x01]].concat(),
        ];
        for bytes in claims {
            let socket = std::os::fd::AsFd::as_fd(&connection);
            send(socket, &bytes, SendFlags::empty()).unwrap();
            let (_, Answer::Unreadable(reason)) = answer(&connection) else { panic!("{bytes:?} was read") };
            assert!(reason.contains("a packet is broken"), "{reason}");
        }
        // A memfd that is not sealed could change while it is read.
        let unsealed = crate::os::sys::memfd::create("unsealed", 4096).unwrap();
        connection.send_raw(&[1], &unsealed);
        let (_, Answer::Unreadable(reason)) = answer(&connection) else { panic!("an unsealed memfd was mapped") };
        assert!(reason.contains("not sealed"), "{reason}");

        connection.send(&(7_u64, Request::Forget { key: 1 }), &Outgoing::default(), &[]).unwrap();
        assert!(matches!(answer(&connection), (7, Answer::Forgotten)));
        assert!(!process.has_ended());
    }

    #[test]
    fn a_message_of_too_many_tensors_is_not_sent() {
        let (left, _right) = Connection::pair().unwrap();
        let segments = vec![Bytes::from_bytes_vec(Vec::new()); (1 << 20) + 1];
        let error = left.send(&(1_u64, Request::ShutDown), &Outgoing { segments }, &[]).unwrap_err();
        assert!(error.to_string().contains("at most 1048576 tensors, not 1048577"), "{error}");
    }
}
