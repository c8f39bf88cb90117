//! What can go wrong between this program, Python, Ray, and the machines of a cluster.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::os::byte_size::mib;

/// Why Ray did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RayError {
    /// No Python environment has Ray.
    #[error(
        "there is no Ray for Python {version} in {}: {reason}; a virtual environment of that Python with `pip install ray` will do, and RAY_ZEROCOPY_PYTHON or VIRTUAL_ENV names it; in a clone of ray-zerocopy, `cargo xtask ray-env` makes one that is found without",
        places(.looked)
    )]
    NoRay {
        /// The version of Python that this program is linked with.
        version: String,
        /// Where it was looked for.
        looked: Vec<PathBuf>,
        /// What Python said.
        reason: String,
    },
    /// The environment is of another Python than the library that this program is linked with.
    #[error(
        "{environment} is an environment of Python {found}, and this program is linked with libpython {linked}; build it with PYO3_PYTHON={environment}/bin/python, or name an environment of {linked} in RAY_ZEROCOPY_PYTHON"
    )]
    OtherPython {
        /// The environment.
        environment: String,
        /// Its version.
        found: String,
        /// The version of the library.
        linked: String,
    },
    /// The cluster cannot be reached or started.
    #[error("no Ray cluster at `{address}`: {cause}")]
    Connect {
        /// Where.
        address: String,
        /// What Ray said.
        cause: String,
    },
    /// This process is in another cluster.
    #[error("this process is in the cluster {address} already; shut it down first")]
    AlreadyConnected {
        /// Its address.
        address: String,
    },
    /// Weights or results of the cluster's store are read in place still.
    #[error(
        "this process still reads {objects} objects of the store of the cluster {address} in place; drop wrappers, arenas, pipelines and results that came from there, then shut it down"
    )]
    #[serde(rename = "Borrowed")]
    StoreInUse {
        /// Its address.
        address: String,
        /// How many objects.
        #[serde(rename = "loans")]
        objects: usize,
    },
    /// The cluster has been left.
    #[error("the cluster has been shut down")]
    ShutDown,
    /// This process is a fork of one that uses Ray.
    #[error(
        "this process is a fork of one that uses Ray, and neither Ray nor Python runs in it; start it by executing a program instead (in Python: `spawn`, not `fork`)"
    )]
    Forked,
    /// The program has privileges that its caller lacks.
    #[error(
        "this program has privileges that its caller lacks (setuid, setgid or file capabilities), and Ray would start it again with the environment of its caller; run it without them, or let a program without them join the cluster"
    )]
    Privileged,
    /// The file of this program cannot be started again.
    #[error("Ray's workers are this program, started again, and {path} cannot be: {reason}")]
    Program {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The runtime environment that Ray would use is not what workers need.
    #[error("the runtime environment has `{key}`: {reason}")]
    RuntimeEnv {
        /// The key.
        key: String,
        /// Why that is wrong, and what to do.
        reason: String,
    },
    /// The object store has no room.
    #[error("Ray's object store on this node has {} MiB of {} MiB free, and {} MiB are needed; start Ray with a larger --object-store-memory, release what is in it, or allow spilling with `ClusterBuilder::spill`", mib(*.free), mib(*.capacity), mib(*.needed))]
    StoreFull {
        /// How many bytes are needed.
        needed: u64,
        /// How many are free.
        free: u64,
        /// How large the store is.
        capacity: u64,
    },
    /// A function or method panicked in a worker.
    #[error("`{what}` panicked in worker {worker}: {message}")]
    Panicked {
        /// The function.
        what: String,
        /// The worker's process and node.
        worker: String,
        /// What the panic said, and where.
        message: String,
    },
    /// Python code raised an exception in a worker.
    #[error("`{what}` raised an exception in a worker: {cause}")]
    Raised {
        /// The function.
        what: String,
        /// The exception, with its traceback.
        cause: String,
    },
    /// A worker's process ended.
    #[error("the worker of `{what}` died: {cause}")]
    WorkerDied {
        /// What it ran.
        what: String,
        /// What Ray knows of it.
        cause: String,
    },
    /// An actor is gone, or is being restarted.
    #[error("the actor of `{what}` {}: {cause}", if *.is_restarting { "is being restarted" } else { "is dead" })]
    ActorDied {
        /// What it was asked for.
        what: String,
        /// Whether it comes back.
        #[serde(rename = "restarting")]
        is_restarting: bool,
        /// What Ray knows of it.
        cause: String,
    },
    /// There is no actor of this name.
    #[error("there is no actor `{name}`: {cause}")]
    NoActor {
        /// The name.
        name: String,
        /// What Ray said.
        cause: String,
    },
    /// Somebody cancelled it.
    #[error("`{what}` was cancelled")]
    Cancelled {
        /// What was.
        what: String,
    },
    /// It is not there in time.
    #[error("`{what}` was not there in time")]
    TimedOut {
        /// What was not.
        what: String,
    },
    /// An object is gone: its node, or the process that owned it.
    #[error("the object of `{what}` is lost: {cause}")]
    Lost {
        /// What made it.
        what: String,
        /// What Ray knows of it.
        cause: String,
    },
    /// A worker is another build of the program.
    #[error(
        "worker {worker} is another build of this program; was it rebuilt while it runs? Start it again, so that driver and workers are the same file"
    )]
    OtherBinary {
        /// The worker's process and node.
        worker: String,
    },
    /// A value could not be turned into bytes or back.
    #[error("{what} could not be sent: {reason}")]
    Wire {
        /// The value.
        what: String,
        /// What went wrong.
        reason: String,
    },
    /// Anything else that Ray or Python says.
    #[error("Ray failed at `{what}`: {cause}")]
    Other {
        /// What was asked.
        what: String,
        /// What it said.
        cause: String,
    },
}

fn places(looked: &[PathBuf]) -> String {
    match looked {
        [] => "Python's own folders".to_owned(),
        looked => looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}

/// Creates an error from what was asked for, and the cause that Ray gave.
type Constructor = fn(String, String) -> RayError;

/// What the classes of Ray's exceptions mean. The first that is among an exception's base classes
/// counts, so a class stands before its bases.
const BY_CLASS: &[(&str, Constructor)] = &[
    ("TaskCancelledError", |what, _| RayError::Cancelled { what }),
    ("GetTimeoutError", |what, _| RayError::TimedOut { what }),
    ("ActorUnavailableError", restarting),
    // The channel of a compiled graph is closed when its actor dies.
    ("RayChannelError", restarting),
    ("RayActorError", |what, cause| RayError::ActorDied { what, is_restarting: false, cause }),
    ("RayTaskError", |what, cause| RayError::Raised { what, cause }),
    ("WorkerCrashedError", worker_died),
    ("NodeDiedError", worker_died),
    ("OutOfMemoryError", worker_died),
    ("ObjectLostError", |what, cause| RayError::Lost { what, cause }),
];

fn restarting(what: String, cause: String) -> RayError {
    RayError::ActorDied { what, is_restarting: true, cause }
}

fn worker_died(what: String, cause: String) -> RayError {
    RayError::WorkerDied { what, cause }
}

fn other(what: String, cause: String) -> RayError {
    RayError::Other { what, cause }
}

impl RayError {
    /// What `exception` means that Ray gave for `what`.
    pub(crate) fn of(exception: &pyo3::Bound<'_, pyo3::PyAny>, what: &str) -> Self {
        use pyo3::prelude::*;
        let kind = exception.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        let bases = exception.get_type().mro();
        let bases: Vec<String> =
            bases.iter().filter_map(|base| base.getattr("__name__").ok()?.extract().ok()).collect();
        let is = |name: &str| bases.iter().any(|base| base == name);
        let text = exception.str().map(|text| text.to_string()).unwrap_or_default();
        let cause = match text.trim() {
            "" => kind,
            text if is("RayTaskError") => text.to_owned(),
            text => format!("{kind}: {text}"),
        };
        let constructor = BY_CLASS.iter().find(|(class, _)| is(class)).map(|(_, constructor)| *constructor);
        constructor.unwrap_or(other)(what.to_owned(), cause)
    }

    /// An exception that was raised here, in this process.
    pub(crate) fn here(error: &pyo3::PyErr, what: &str) -> Self {
        pyo3::Python::attach(|py| Self::of(error.value(py).as_any(), what))
    }
}
