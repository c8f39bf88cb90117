//! Errors of the Ray bindings: of this program, Python, Ray, and the nodes of a cluster.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::os::byte_size::mib;

/// Error of a Ray operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RayError {
    /// No Python environment has Ray.
    #[error(
        "found no Ray for Python {version} in {}: {reason}; create a virtual environment of this Python version with `pip install ray`, and set RAY_ZEROCOPY_PYTHON or VIRTUAL_ENV to its path; in a clone of ray-zerocopy, `cargo xtask ray-env` creates one that is found without a variable",
        places(.looked)
    )]
    NoRay {
        /// Version of Python that this program is linked with.
        version: String,
        /// The folders that were searched.
        looked: Vec<PathBuf>,
        /// Python's error.
        reason: String,
    },
    /// The environment has another Python version than the library that this program is linked
    /// with.
    #[error(
        "{environment} is an environment of Python {found}, but this program is linked with libpython {linked}; build it with PYO3_PYTHON={environment}/bin/python, or set RAY_ZEROCOPY_PYTHON to an environment of Python {linked}"
    )]
    OtherPython {
        /// Path of the environment.
        environment: String,
        /// Its Python version.
        found: String,
        /// Version of the linked library.
        linked: String,
    },
    /// The cluster cannot be reached or started.
    #[error("no Ray cluster at `{address}`: {cause}")]
    Connect {
        /// Address of the cluster.
        address: String,
        /// Ray's error.
        cause: String,
    },
    /// This process is connected to a cluster already.
    #[error("this process is already connected to the cluster {address}; call `shut_down` on that one first")]
    AlreadyConnected {
        /// Address of the current cluster.
        address: String,
    },
    /// Weights or results in the cluster's store are still borrowed.
    #[error(
        "this process still borrows {objects} objects in the store of the cluster {address}; drop its wrappers, arenas, pipelines and results, then shut it down"
    )]
    #[serde(rename = "Borrowed")]
    StoreInUse {
        /// Address of the cluster.
        address: String,
        /// Number of borrowed objects.
        #[serde(rename = "loans")]
        objects: usize,
    },
    /// The connection to the cluster has been closed.
    #[error("the cluster has been shut down")]
    ShutDown,
    /// This process is a fork of one that uses Ray.
    #[error(
        "this process is a fork of one that uses Ray, and neither Ray nor Python works in a fork; execute a program instead of forking (in Python: `spawn`, not `fork`)"
    )]
    Forked,
    /// The program has privileges that its caller lacks.
    #[error(
        "this program has privileges that its caller lacks (setuid, setgid or file capabilities), and Ray would start it as a worker with the caller's environment; run it without these privileges, or connect to the cluster from another program"
    )]
    Privileged,
    /// The file of this program cannot be started as a worker.
    #[error("Ray's workers run this program, but {path} cannot be started as a worker: {reason}")]
    Program {
        /// Path of the program.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A key of Ray's runtime environment conflicts with the settings that workers need.
    #[error("the runtime environment has `{key}`: {reason}")]
    RuntimeEnv {
        /// The key.
        key: String,
        /// The conflict, and what to do.
        reason: String,
    },
    /// The object store is full.
    #[error("Ray's object store on this node has {} MiB of {} MiB free, but {} MiB are needed; start Ray with a larger --object-store-memory, release objects in the store, or allow spilling with `ClusterBuilder::spill`", mib(*.free), mib(*.capacity), mib(*.needed))]
    StoreFull {
        /// Required bytes.
        needed: u64,
        /// Free bytes.
        free: u64,
        /// Size of the store in bytes.
        capacity: u64,
    },
    /// A function or method panicked in a worker.
    #[error("`{what}` panicked in worker {worker}: {message}")]
    Panicked {
        /// Name of the function.
        what: String,
        /// The worker's process id and node.
        worker: String,
        /// Message and source location of the panic.
        message: String,
    },
    /// Python code raised an exception in a worker.
    #[error("`{what}` raised an exception in a worker: {cause}")]
    Raised {
        /// Name of the function.
        what: String,
        /// The exception, with its traceback.
        cause: String,
    },
    /// A worker process died.
    #[error("the worker of `{what}` died: {cause}")]
    WorkerDied {
        /// Name of the task that it ran.
        what: String,
        /// The cause, as reported by Ray.
        cause: String,
    },
    /// An actor is dead, or is being restarted.
    #[error("the actor of `{what}` {}: {cause}", if *.is_restarting { "is being restarted" } else { "is dead" })]
    ActorDied {
        /// Name of the call.
        what: String,
        /// Whether Ray restarts the actor.
        #[serde(rename = "restarting")]
        is_restarting: bool,
        /// The cause, as reported by Ray.
        cause: String,
    },
    /// No actor has this name.
    #[error("there is no actor `{name}`: {cause}")]
    NoActor {
        /// The name.
        name: String,
        /// Ray's error.
        cause: String,
    },
    /// The call was cancelled.
    #[error("`{what}` was cancelled")]
    Cancelled {
        /// Name of the call.
        what: String,
    },
    /// The result was not available in time.
    #[error("the result of `{what}` was not available in time")]
    TimedOut {
        /// Name of the call.
        what: String,
    },
    /// An object is lost with its node, or with the process that owned it.
    #[error("the object of `{what}` is lost: {cause}")]
    Lost {
        /// Name of the call that created the object.
        what: String,
        /// The cause, as reported by Ray.
        cause: String,
    },
    /// A worker runs another build of the program.
    #[error(
        "worker {worker} runs another build of this program, which was probably rebuilt in the meantime; restart the program, so that driver and workers run the same file"
    )]
    OtherBinary {
        /// The worker's process id and node.
        worker: String,
    },
    /// A value could not be serialised or deserialised.
    #[error("{what} could not be sent: {reason}")]
    Wire {
        /// The value.
        what: String,
        /// The reason.
        reason: String,
    },
    /// Any other error of Ray or Python.
    #[error("Ray failed at `{what}`: {cause}")]
    Other {
        /// Name of the operation.
        what: String,
        /// The error of Ray or Python.
        cause: String,
    },
}

fn places(looked: &[PathBuf]) -> String {
    match looked {
        [] => "Python's own folders".to_owned(),
        looked => looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}

/// Creates an error from the name of the operation and Ray's cause.
type Constructor = fn(String, String) -> RayError;

/// Errors by the class of Ray's exception. The first entry that is among an exception's base
/// classes is used, so a class is listed before its bases.
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
    /// Converts an exception of Ray into an error. `what` is the name of the operation.
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

    /// Converts an exception that was raised in this process.
    pub(crate) fn here(error: &pyo3::PyErr, what: &str) -> Self {
        pyo3::Python::attach(|py| Self::of(error.value(py).as_any(), what))
    }
}
