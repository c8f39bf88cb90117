//! Main loop of a worker process: loads programs, runs calls, and exits with its owner.

use crate::engine::served::{LoadedProgram, MethodError, Served, take_state};
use crate::engine::spin::spin_and_yield;
use crate::engine::trace::setup::WorkerSetUp;
use crate::engine::trace::{remote, setup};
use crate::engine::worker_nodes::{LoadOptions, load_copy};
use crate::os::cpu_placement::bind_process;
use crate::os::sys::{atexit, malloc, peer, privileges};
use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{Signal, geteuid, getpid, getppid, kill_process};

use super::call_inbox::CallInbox;
use super::protocol::{Answer, Request};
use super::recycled::Side;
use super::run_bundle::{self, CallBundle};
use super::shared_area::SharedArea;
use super::transport::{Connection, Event, Received};
use crate::arena::arena::Arena;
use crate::engine::message::Outgoing;
use crate::engine::program::Attached;
use crate::os::{last_call, limits};
use crate::panics;

/// Environment variable of a worker. Its value is the version of the protocol.
pub(crate) const ENVIRONMENT: &str = "RAY_ZEROCOPY_WORKER";
pub(crate) const VERSION: &str = "8";
/// Stack size of the thread that waits for the end of the owner: twice what it needs.
const WATCHER_STACK: usize = 64 * 1024;

/// Connection and owner of a process that was started as a worker.
pub(crate) struct StartedAsWorker {
    connection: Connection,
    /// The process that started this one.
    owner: i32,
}

/// Exit status of a process that was started as a worker but cannot work: `EX_UNAVAILABLE` of
/// `sysexits.h`.
const UNFIT: i32 = 69;

/// Returns `true` if the environment requests a worker. A worker's own children inherit this
/// variable.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(ENVIRONMENT).is_some()
}

/// Takes the connection to the owner. Returns `None` if this process was not started as a worker.
///
/// The environment alone is not proof, since a worker's own children inherit it. A process was
/// started as a worker if its standard input is also a `SOCK_SEQPACKET` socket. From then on, every
/// failure ends the process.
pub(crate) fn claim() -> Option<StartedAsWorker> {
    let version = std::env::var_os(ENVIRONMENT)?;
    let stdin = std::io::stdin();
    if socket_type(&stdin) != Ok(SocketType::SEQPACKET) {
        return None;
    }
    if privileges::privileged() {
        give_up(
            "this program has privileges that its caller lacks (setuid, setgid or file capabilities); run it without them",
        );
    }
    if version != VERSION {
        let version = version.display();
        give_up(&format!(
            "the program that started it has another version of ray-zerocopy: its protocol has version {version}, that of \
             this program has version {VERSION}; build both with the same version"
        ));
    }
    let owner = match peer::peer(&stdin) {
        Ok(peer) if peer.uid == geteuid().as_raw() => peer.pid,
        Ok(peer) => give_up(&format!("the other end of its socket belongs to user {}, not to its own user", peer.uid)),
        Err(error) => give_up(&format!("getsockopt(SO_PEERCRED): {error}")),
    };
    if parent() != owner {
        if parent() == 1 || !exists(owner) {
            // The owner ended while this process started. The user does not need to see that as a failure.
            atexit::at_once(UNFIT);
        }
        give_up(&format!(
            "it was started by process {}, but its socket belongs to process {owner}; a script around a program has to `exec` it",
            parent()
        ));
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)
        .unwrap_or_else(|error| give_up(&limits::named("fcntl(F_DUPFD_CLOEXEC)", &error.into()).to_string()));
    // From here on, user code and child processes cannot access the socket through standard input.
    if let Err(error) = empty().and_then(|empty| Ok(rustix::stdio::dup2_stdin(&empty)?)) {
        give_up(&limits::named("standard input cannot be redirected to /dev/null", &error).to_string());
    }
    Some(StartedAsWorker { connection: Connection::from_fd(socket), owner })
}

/// Ends a process that was started as a worker but cannot work. Prints the reason to standard
/// error, which is inherited from the owner.
fn give_up(reason: &str) -> ! {
    eprintln!("ray-zerocopy worker {}: it cannot work: {reason}", std::process::id());
    atexit::at_once(UNFIT)
}

/// Parent of this process, or 0 if it is outside of this process's pid namespace.
fn parent() -> i32 {
    getppid().map_or(0, |pid| pid.as_raw_nonzero().get())
}

/// Returns `true` if a process with this id exists.
fn exists(pid: i32) -> bool {
    let asked = rustix::process::Pid::from_raw(pid).map(rustix::process::test_kill_process);
    !matches!(asked, Some(Err(rustix::io::Errno::SRCH)))
}

/// Opens an empty file to read from: `/dev/null`, or the read end of a pipe if that is missing.
fn empty() -> std::io::Result<OwnedFd> {
    match std::fs::File::open("/dev/null") {
        Ok(file) => Ok(file.into()),
        Err(_) => Ok(std::io::pipe()?.0.into()),
    }
}

/// Turns this process into a worker on platforms where constructors do not run. Called by
/// [`init`](crate::init).
pub(crate) fn fallback() {
    if let Some(claimed) = claim() {
        run(claimed)
    }
}

/// Serves requests until the owner requests shutdown or ends.
pub(crate) fn run(StartedAsWorker { connection, owner }: StartedAsWorker) -> ! {
    malloc::keep();
    let (connection, shared) = match shared_area(&connection) {
        Ok(First { area, recycled, set_up }) => {
            let result = set_up.map_or(Ok(()), WorkerSetUp::run);
            let result = result.map_err(|reason| format!("the set-up of workers could not be run: {reason}"));
            (connection.with_shared(area).with_recycled(Side::Worker, recycled), result)
        }
        Err(error) => (connection, Err(format!("the memory that it shares with its owner: {error}"))),
    };
    let connection = Arc::new(connection);
    last_words(&connection);
    let inbox = CallInbox::install(&connection);
    let ready = match shared.and_then(|()| watch(&connection, owner)) {
        Ok(()) => Answer::Ready,
        Err(reason) => Answer::NotReady(reason),
    };
    if answer(&connection, 0, &ready, &Outgoing::default()).is_err() {
        die();
    }
    let mut programs = HashMap::new();
    loop {
        // Waits first, and receives then. A process that is killed while it waits leaves the
        // request in the socket, so the owner knows that it was not received. If the process is
        // killed while it receives, the kernel still removes the request.
        spin_and_yield(|| connection.is_readable());
        let received = connection.wait(None).and_then(|_| connection.next::<(u64, Request)>());
        let served = match received {
            Ok(Event::Message(request)) => serve(&connection, &inbox, &mut programs, request),
            Ok(Event::Unreadable(error)) => {
                answer(&connection, 0, &Answer::Unreadable(error.to_string()), &Outgoing::default())
            }
            Ok(Event::Quiet) => Ok(()),
            Ok(Event::Gone(_)) => die(),
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            // The owner only sees a dead worker, so the reason is printed. An owner that has hung
            // up does not need it.
            if error.kind() != std::io::ErrorKind::BrokenPipe {
                eprintln!("ray-zerocopy worker {}: its socket failed: {error}", std::process::id());
            }
            die();
        }
        if last_call::is_requested() {
            eprintln!(
                "ray-zerocopy worker {}: it ends, since it cannot compute on its device any more",
                std::process::id()
            );
            die();
        }
    }
}

/// The content of the first packet.
struct First {
    /// The memory that is shared with the owner.
    area: SharedArea,
    /// Number of bytes that may be kept for large messages.
    recycled: u64,
    set_up: Option<WorkerSetUp>,
}

/// Receives the first packet, and opens the memory that is shared with the owner.
fn shared_area(connection: &Connection) -> std::io::Result<First> {
    let received = connection.receive::<(u64, Request)>()?;
    let first = received.and_then(|received| match received.message {
        (_, Request::Share { recycled, set_up }) => Some((received.fds.into_iter().next()?, recycled, set_up)),
        _ => None,
    });
    let (area, recycled, set_up) = first.ok_or_else(|| std::io::Error::other("the owner has not sent it"))?;
    Ok(First { area: SharedArea::open(area)?, recycled, set_up })
}

/// Ensures that this process ends with its owner, even while a method runs.
///
/// The parent death signal kills this process when the owner's thread that started it ends, even if
/// this process is stopped. The kernel clears that signal if user code changes the user of this
/// process, so a thread also waits for EOF. EOF alone is not sufficient: a fork of the owner keeps
/// the owner's end of the socket open.
fn watch(connection: &Arc<Connection>, owner: i32) -> Result<(), String> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("prctl(PR_SET_PDEATHSIG): {error}"))?;
    // If the owner ended before `prctl`, the signal is never sent.
    if parent() != owner {
        die();
    }
    let connection = Arc::clone(connection);
    let watcher = std::thread::Builder::new().name("ray-zerocopy watcher".to_owned()).stack_size(WATCHER_STACK);
    let watcher = watcher.spawn(move || {
        // After an error this thread could not detect the end of the owner, so it ends too.
        drop(connection.wait_for_the_end());
        die()
    });
    watcher.map(drop).map_err(|error| limits::named("the watcher thread could not be started", &error).to_string())
}

/// Installs a panic hook that reports each panic to the owner first. If a panic aborts the process,
/// this is the only report. That happens in a program built with `panic = "abort"`, during the
/// unwinding of another panic, and in code that cannot unwind.
fn last_words(connection: &Arc<Connection>) {
    let connection = Arc::clone(connection);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let message = panics::message(info.payload());
        let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line())).unwrap_or_default();
        // The owner reads it if this process dies. A full socket already contains other reports.
        let _full = connection.try_send(&(0_u64, Answer::Panics(format!("{message}{place}"))));
        before(info);
    }));
}

/// Kills this process at once, including its other threads.
fn die() -> ! {
    let _dead = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

pub(super) type Programs = HashMap<u64, Box<dyn Served>>;

fn serve(
    connection: &Connection,
    inbox: &Arc<CallInbox>,
    programs: &mut Programs,
    request: Received<(u64, Request)>,
) -> std::io::Result<()> {
    let nothing = Outgoing::default();
    let (serial, message) = request.message;
    match message {
        Request::Load { key, loader, device, strict, memory, prewarm, arena, seat } => {
            let begun = Instant::now();
            let options = LoadOptions { device, strict, memory, prewarm };
            let arena = Arena::from_handle(&arena, request.fds).map_err(Into::into);
            match arena.and_then(|arena| load_copy(arena, seat, bind_process, &loader, options)) {
                Ok((LoadedProgram { served, copied, device, decoding, prewarming }, memory)) => {
                    programs.insert(key, served);
                    let took = begun.elapsed().saturating_sub(memory.took + prewarming);
                    let attached =
                        Attached { copied, device, took, decoding, memory, instructions: Attached::instructions() };
                    answer(connection, serial, &Answer::Loaded(Box::new(attached)), &nothing)
                }
                Err(error) => answer(connection, serial, &Answer::NotLoaded(error), &nothing),
            }
        }
        Request::Call { key, handler, has_items, state_of, trace } => {
            let items = inbox.begin(serial, has_items);
            let result = remote::run(trace.as_ref(), || match (state_of, programs.get_mut(&key)) {
                (Some(from), _) => take_state(programs, from, key, &handler),
                (None, Some(program)) => program.call(&handler, request.payload, items),
                (None, None) => Err(MethodError::not_loaded()),
            });
            inbox.end();
            // Output is flushed before the result is sent. The owner may end as soon as it has the
            // result, and its workers end with it. An error is ignored: standard output belongs to
            // the owner, which may have closed it.
            drop(std::io::stdout().flush());
            answer_call(connection, serial, result)
        }
        Request::Bundle { key, handlers, calls, traces } => {
            let bundle = CallBundle { key, handlers, calls, traces, payload: request.payload };
            run_bundle::run(connection, inbox, programs, serial, &bundle)
        }
        Request::Forget { key } => {
            let forgotten = programs.remove(&key);
            // A panic in the pipeline's `drop` has been printed, and does not affect other
            // programs.
            drop(panics::caught(|| drop(forgotten)));
            answer(connection, serial, &Answer::Forgotten, &nothing)
        }
        // It was sent while a call ran, and has come too late.
        Request::Wake => Ok(()),
        Request::Share { .. } => {
            let again = Answer::Unreadable("the shared memory was sent twice".to_owned());
            answer(connection, serial, &again, &nothing)
        }
        Request::ShutDown => {
            drop(panics::caught(|| programs.clear()));
            setup::end();
            drop(std::io::stdout().flush());
            std::process::exit(0)
        }
    }
}

/// Answers a call with its result.
pub(super) fn answer_call(
    connection: &Connection,
    serial: u64,
    result: Result<Outgoing, MethodError>,
) -> std::io::Result<()> {
    let nothing = Outgoing::default();
    match result {
        Ok(result) => answer(connection, serial, &Answer::Done, &result).or_else(|error| {
            let failure = MethodError::Wire { what: "the result".to_owned(), reason: error.to_string() };
            answer(connection, serial, &Answer::Failed(failure), &nothing)
        }),
        Err(failure) => answer(connection, serial, &Answer::Failed(failure), &nothing),
    }
}

pub(super) fn answer(connection: &Connection, serial: u64, answer: &Answer, payload: &Outgoing) -> std::io::Result<()> {
    connection.send(&(serial, answer), payload, &[])
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
        connection.receive().unwrap().expect("the worker is alive").message
    }

    #[test]
    fn worker_answers_unreadable_requests() {
        let (mut process, connection) =
            Process::start(0, &Settings { threads: Some(1), ..Settings::default() }, || true).unwrap();
        let number = u64::to_le_bytes;
        let claims = [
            // A frame in a missing memfd, and an unknown kind of frame.
            vec![1],
            vec![9, 9, 9],
            // Lengths and segment counts that overflow.
            [&[0][..], &number(u64::MAX), &number(0)].concat(),
            [&[0][..], &number(0), &number(u64::MAX)].concat(),
            [&[0][..], &number(1), &number(1), &number(u64::MAX - 63), &[0xc0]].concat(),
            // MessagePack that claims 2^32 - 1 keys, and an unknown request.
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
    fn message_with_too_many_tensors_is_not_sent() {
        let (left, _right) = Connection::pair().unwrap();
        let segments = vec![Bytes::from_bytes_vec(Vec::new()); (1 << 20) + 1];
        let error = left.send(&(1_u64, Request::ShutDown), &Outgoing { segments }, &[]).unwrap_err();
        assert!(error.to_string().contains("at most 1048576 tensors, not 1048577"), "{error}");
    }
}
