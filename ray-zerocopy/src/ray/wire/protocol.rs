//! What a driver and Ray's workers say to each other.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprint;
use crate::engine::program::Attached;
use crate::engine::served::MethodError;
use crate::engine::sys::entry::FnToken;
use crate::error::load::LoadError;

/// Driver → worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The build of the driver.
    pub binary: Fingerprint,
    /// How many threads to compute with.
    pub threads: usize,
    /// Whether it is for the thread on which Ray calls: all but pipelines of tasks.
    pub own: bool,
    /// Whether the result has to be in one piece: what carries it is written over by the next.
    pub whole: bool,
    pub order: Order,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run a function. Its argument comes along, or as an object of Ray's.
    Function { shim: FnToken, function: FnToken, by_reference: bool },
    /// Make the state of an actor.
    Begin { shim: FnToken, function: FnToken, by_reference: bool },
    /// Run a function on the state of the actor.
    Method { shim: FnToken, function: FnToken, by_reference: bool },
    /// Load a pipeline for an actor, which keeps it; its arena comes along as the first object.
    Load { program: ProgramId, load: Load },
    /// Run a method of a pipeline, for a task, or for an actor which keeps the pipeline. With `load`, its arena comes along as the first object.
    Call { program: ProgramId, handler: FnToken, load: Option<Load>, live: Vec<u64> },
}

/// How a pipeline is loaded from its arena.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub loader: FnToken,
    pub device: String,
    pub strict: bool,
}

/// Names a program of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ProgramId {
    /// The driver: a number of chance.
    pub driver: u64,
    pub key: u64,
}

/// Worker → driver.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reply {
    pub from: Origin,
    /// If the worker has just loaded the pipeline.
    pub attached: Option<Attached>,
    pub answer: Answer,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The result comes along.
    Done,
    Failed(MethodError),
    /// The worker has not loaded the pipeline, and was not given the arena.
    Missing,
    NotLoaded(LoadError),
    /// The worker is another build than the driver.
    OtherBinary,
}

/// A process somewhere in the cluster.
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
