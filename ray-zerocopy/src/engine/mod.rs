//! Engines: where calls run.
//!
//! An engine moves opaque arenas and opaque calls. It knows nothing of wrappers or of what a pipeline is: a program is
//! an arena, the code that loads it, and a device; a call is the code to run on it, and bytes.

pub mod local;
pub(crate) mod message;
#[cfg(feature = "ray")]
pub(crate) mod ray;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::arena::Arena;
use crate::arena::memory::{Memory, MemoryOutcome};
use crate::panics;
use crate::pipeline::{Copied, LoadError};
use message::{Incoming, Outgoing};

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CallError {
    /// The method panicked. The worker lives on.
    #[error("`{method}` panicked in {worker}: {message}")]
    Panicked {
        /// The method.
        method: String,
        /// The worker that ran it.
        worker: Worker,
        /// What the panic said, and where.
        message: String,
    },
    /// The worker's process ended while it ran the call.
    #[error("{worker} died while it ran `{method}` ({how}), attempt {attempts} of {allowed}{}", after(.actor))]
    WorkerDied {
        /// The method.
        method: String,
        /// The last worker that ran it.
        worker: Worker,
        /// The exit status or the signal.
        how: String,
        /// How often the call was tried.
        attempts: u32,
        /// How often it might be tried.
        allowed: u32,
        /// Whether the worker was an actor, whose state is gone with it.
        actor: bool,
    },
    /// The call did not end in time. A worker that was busy with it was replaced.
    #[error("`{method}` passed its deadline of {after:?} {place}; give it longer with `.deadline(..)`")]
    Deadline {
        /// The method.
        method: String,
        /// The deadline.
        after: Duration,
        /// Where the call was: in the queue, or in which worker.
        place: String,
    },
    /// The queue is full, and the wrapper does not wait.
    #[error("the queue is full: {waiting} calls are waiting for {workers} workers")]
    QueueFull {
        /// How many calls are in the queue.
        waiting: usize,
        /// How many workers there are.
        workers: usize,
    },
    /// The result has been taken already.
    #[error("the result of `{method}` has been taken already; wait for it once")]
    Taken {
        /// The method.
        method: String,
    },
    /// The engine was shut down before the call could run.
    #[error("`{method}` was not run: the engine has been shut down")]
    ShutDown {
        /// The method.
        method: String,
    },
    /// The worker could not load the pipeline.
    #[error("{worker} could not load the pipeline: {error}")]
    Load {
        /// The worker.
        worker: Worker,
        /// Why not.
        #[source]
        error: LoadError,
    },
    /// No worker process could be started.
    #[error("no worker process for `{method}`: {reason}")]
    Start {
        /// The method.
        method: String,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// Ray has no result, for a reason of its own.
    #[cfg(feature = "ray")]
    #[error("`{method}` has no result: {error}")]
    Ray {
        /// The method.
        method: String,
        /// What Ray said.
        #[source]
        error: crate::ray::RayError,
    },
    /// The inputs are not what the graph takes, or it failed.
    #[error("`{method}` has no result: {error}")]
    Graph {
        /// The method.
        method: String,
        /// What is wrong.
        #[source]
        error: crate::jit::ReplayError,
    },
    /// An argument or a result could not be turned into bytes or back.
    #[error("{what} of `{method}` could not travel between the processes: {reason}")]
    Wire {
        /// The method.
        method: String,
        /// The arguments, or the result.
        what: String,
        /// What went wrong.
        reason: String,
    },
}

impl CallError {
    /// For a call in a fork of the process that has the engine, where its threads are not.
    pub(crate) fn forked(method: &str) -> Self {
        let reason = "this process is a fork of the one that has the workers, and cannot use them: execute a program instead, or \
                      fork before the workers are started";
        Self::Start { method: method.to_owned(), reason: reason.to_owned() }
    }
}

fn after(actor: &bool) -> &'static str {
    match actor {
        true => {
            "; a call of an actor is not repeated, since its state is gone: the actor was started anew from the arena"
        }
        false => "; does the method crash on this input?",
    }
}

/// Names a worker: the engine's number for it, and the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Worker {
    /// Which worker of the pool.
    pub index: usize,
    /// The process id; 0 if there is no process yet.
    pub pid: u32,
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => write!(f, "worker {} (not started)", self.index),
            pid => write!(f, "worker {} (pid {pid})", self.index),
        }
    }
}

/// A loaded program in a worker, as the worker reported it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attached {
    /// What could not be borrowed.
    pub copied: Vec<Copied>,
    /// From the arrival of the arena in the worker to the loaded pipeline, without the memory policy.
    pub took: Duration,
    /// How much of that went into the copied fields.
    pub decoding: Duration,
    /// What came of the memory policy in the worker, before the pipeline was loaded.
    pub memory: MemoryOutcome,
}

/// What a worker needs to have before it can run calls: an arena, and the code that loads it.
pub(crate) struct Program {
    /// Tells programs apart within this process.
    pub key: u64,
    pub arena: Arena,
    pub loader: local::EntryToken,
    pub device: String,
    pub strict: bool,
    pub memory: Memory,
    /// Whose workers hold the program; they are told when nobody needs it any more.
    pub engine: OnceLock<Weak<dyn Engine>>,
}

impl Program {
    pub(crate) fn new(arena: Arena, loader: local::EntryToken, device: String, strict: bool, memory: Memory) -> Self {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let key = KEYS.fetch_add(1, Ordering::Relaxed);
        Self { key, arena, loader, device, strict, memory, engine: OnceLock::new() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.get().and_then(Weak::upgrade) {
            engine.forget(self.key);
        }
    }
}

/// One call on its way to a worker.
pub(crate) struct Call {
    pub program: Arc<Program>,
    pub method: &'static str,
    pub handler: local::EntryToken,
    pub args: Outgoing,
    pub reply: oneshot::Sender<Result<Incoming, CallError>>,
    pub deadline: Option<(Instant, Duration)>,
    /// How often the call may be tried when workers die: 1 for actors.
    pub allowed: u32,
    pub attempts: u32,
    /// How often it was given to a process that was gone before it heard of it.
    pub unheard: u32,
    /// Whether the worker is an actor, for the words of an error.
    pub actor: bool,
    /// The one worker that has to run it, for a call to one actor.
    pub pinned: Option<usize>,
}

impl Call {
    /// Whether its deadline has passed.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self.deadline, Some((until, _)) if until <= Instant::now())
    }

    /// Answers. A caller that no longer waits is no error.
    pub(crate) fn answer(self, result: Result<Incoming, CallError>) {
        // Whoever waits is woken here, and the program may go: code of others, whose panic is not the engine's.
        drop(panics::caught(move || drop(self.reply.send(result))));
    }
}

/// Runs `wait`, which blocks until other threads have done something. They may need Python's lock, which this thread may have.
pub(crate) fn blocking<R: Send>(wait: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "ray")]
    return crate::ray::without_python(wait);
    #[cfg(not(feature = "ray"))]
    wait()
}

/// The right of a caller to receive the answer to its call. Dropped, the right is the engine's.
pub(crate) trait Receive: Send {
    /// Receives the answer, and delivers it, unless somebody else does. May block until it is there.
    fn receive(self: Box<Self>);
}

/// A call that was taken, with the right to its answer if it is the caller's; or that was not.
pub(crate) type Submitted = Result<Option<Box<dyn Receive>>, Box<(Call, CallError)>>;

/// Where calls run.
pub(crate) trait Engine: Send + Sync {
    /// Hands a call to the engine. Every call that is handed over is answered, whatever happens to workers. Its caller may
    /// get the right to receive the answer, which is quicker than to have it received.
    ///
    /// # Errors
    /// Gives the call back if the engine does not take it: the queue is full and `wait` is not set, the deadline passed
    /// while it waited for a place, or the engine has been shut down.
    fn submit(&self, call: Call, wait: bool) -> Submitted;

    /// Frees what the workers hold for a program.
    fn forget(&self, key: u64);

    /// The workers that have a process now.
    fn workers(&self) -> Vec<Worker>;

    /// Whether a worker is a process of this machine.
    fn is_here(&self, worker: Worker) -> bool {
        let _ = worker;
        true
    }

    /// How many workers there are, with those that are being started.
    fn size(&self) -> usize;

    /// Runs the calls that wait, takes no new ones, and ends the workers. Returns when they are gone.
    fn shut_down(&self);

    /// Ends the workers at once, whatever they do. Calls that wait or run are errors.
    fn abort(&self);

    /// What each worker said when it loaded the program.
    fn attached(&self, key: u64) -> Vec<(Worker, Attached)>;
}

/// Where a wrapper's calls can run: [`Local`](crate::Local) workers of this machine, or a Ray cluster.
///
/// Nobody else implements it.
pub trait Place: Home + Sized {}

/// What a wrapper needs of a place.
pub trait Home: Send + Sync + 'static {
    /// The arena as the place's workers can get at it.
    #[doc(hidden)]
    fn adopt(&self, arena: Arena) -> crate::Result<Arena>;

    /// The workers that run tasks.
    #[doc(hidden)]
    fn tasks(&self) -> crate::Result<Tasks>;

    /// Starts actors that load a program.
    #[doc(hidden)]
    fn actors(&self, start: Start) -> crate::Result<Tasks>;

    /// The place, to be kept.
    #[doc(hidden)]
    fn home(&self) -> Arc<dyn Home>;
}

/// An engine, as wrappers keep it.
#[derive(Clone)]
pub struct Tasks(pub(crate) Arc<dyn Engine>);

/// Actors that are to be started.
pub struct Start {
    pub(crate) settings: local::Settings,
    pub(crate) program: Arc<Program>,
}
