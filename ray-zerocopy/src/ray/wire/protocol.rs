//! Protocol between a driver and Ray's workers.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bundle::{BundledAnswer, CallBundle};
use super::fingerprint::Fingerprint;
use crate::engine::program::Attached;
use crate::engine::served::{MethodError, Prewarm};
use crate::engine::sys::entry::FnToken;
use crate::engine::trace::remote::CallContext;
use crate::engine::trace::setup::WorkerSetUp;
use crate::error::load::LoadError;

/// Driver → worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Fingerprint of the driver's executable.
    pub binary: Fingerprint,
    /// Number of threads to compute with.
    pub threads: usize,
    /// Whether the order runs on the thread on which Ray calls. `false` only for pipelines of
    /// tasks.
    pub own: bool,
    /// Whether the reply must be in one buffer: the compiled graph's channel is overwritten by the
    /// next message.
    pub whole: bool,
    /// What the worker's process runs first, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_up: Option<WorkerSetUp>,
    pub order: Order,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Runs a function. The argument is in the message, or in an object of Ray's store.
    Function { shim: FnToken, function: FnToken, by_reference: bool },
    /// Constructs the state of an actor.
    Construct { shim: FnToken, function: FnToken, by_reference: bool },
    /// Calls a function on the state of the actor.
    Method { shim: FnToken, function: FnToken, by_reference: bool },
    /// Loads a pipeline for an actor, which keeps it. The containers of its arena are sent as the first
    /// objects.
    Load { program: ProgramId, load: Load },
    /// Runs a method of a pipeline, as a task, or on an actor. With `state_of`, the method moves the state of
    /// that program to this one. `bundle` is set on an actor, where it is a bundle of one call: the number under which
    /// the driver says that the call is cancelled.
    Call {
        target: Target,
        handler: FnToken,
        state_of: Option<ProgramId>,
        bundle: Option<u64>,
        /// Set if the call is traced.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<CallContext>,
    },
    /// Runs several methods of a pipeline, one after the other.
    Bundle { target: Target, bundle: CallBundle },
    /// Drops a pipeline of an actor.
    Forget { program: ProgramId },
}

/// The pipeline of a call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    pub program: ProgramId,
    /// Set if the worker may not have loaded it. The containers of its arena are sent as the first objects.
    pub load: Option<Load>,
    /// The keys of the programs that the driver still uses: a worker of tasks drops the others. `None` for an
    /// actor, which is told by `Forget`.
    pub live: Option<Vec<u64>>,
}

/// Parameters for loading a pipeline from its arena.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub loader: FnToken,
    pub device: String,
    pub strict: bool,
    pub prewarm: Option<Prewarm>,
    /// Number of the arena's containers: its own, and those that it borrows from.
    pub containers: usize,
}

/// Id of a program, unique in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ProgramId {
    /// Random id of the driver process.
    pub driver: u64,
    pub key: u64,
}

/// Worker → driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub from: Origin,
    /// Report on the load, if the worker has just loaded the pipeline.
    pub attached: Option<Attached>,
    pub answer: Answer,
    /// Time that the method has taken, if one was called.
    pub took: Option<Duration>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The message contains an item of a stream. Others follow, and then one of the answers below.
    Item,
    /// The message contains the result.
    Done,
    Failed(MethodError),
    /// The worker has run a bundle. The message contains the results.
    Bundle(Vec<BundledAnswer>),
    /// The call was cancelled before it began, and has not run. Not that of a task, which Ray cancels.
    Skipped,
    /// The worker has not loaded the pipeline, and did not get the arena.
    Missing,
    NotLoaded(LoadError),
    /// The worker runs another build than the driver.
    OtherBinary,
}

/// A process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub pid: u32,
    pub host: String,
}

impl Origin {
    pub(crate) fn here() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { pid: std::process::id(), host }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.pid, self.host)
    }
}
