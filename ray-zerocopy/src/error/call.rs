//! Errors of calls and of starting workers, and the [`Worker`] that they name.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::load::LoadError;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CallError {
    /// The method panicked. The worker keeps running.
    #[error("`{method}` panicked in {worker}: {message}")]
    Panicked {
        /// The method.
        method: String,
        /// The worker that ran it.
        worker: Worker,
        /// The panic message and its location.
        message: String,
    },
    /// The worker's process ended while it ran the call.
    #[error("{worker} died while it ran `{method}` ({how}), attempt {attempts} of {allowed}{}", after(.is_actor))]
    WorkerDied {
        /// The method.
        method: String,
        /// The last worker that ran it.
        worker: Worker,
        /// The exit status or the signal.
        how: String,
        /// The number of attempts so far.
        attempts: u32,
        /// The limit on attempts.
        allowed: u32,
        /// Whether the worker was an actor, whose state is lost.
        #[serde(rename = "actor")]
        is_actor: bool,
    },
    /// The call did not end before its deadline. A worker that was running it was replaced.
    #[error("`{method}` passed its deadline of {after:?} {phase}; set a longer one with `.deadline(..)`")]
    Deadline {
        /// The method.
        method: String,
        /// The deadline.
        after: Duration,
        /// The stage that the call had reached.
        phase: CallPhase,
    },
    /// The queue is full, and the wrapper does not wait for a place in it.
    #[error(
        "the queue is full: {waiting} calls are waiting for {workers} workers; without `.fail_when_full()` a call waits for a place"
    )]
    QueueFull {
        /// How many calls are in the queue. On Ray, running calls count too.
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
    /// The call has been cancelled: with [`Pending::cancel`](crate::Pending::cancel), or by dropping
    /// a [`Pending`](crate::Pending) that cancels.
    #[error("`{method}` was cancelled by its caller")]
    Cancelled {
        /// The method.
        method: String,
    },
    /// The engine was shut down before the call could run.
    #[error("`{method}` was not run: the engine has been shut down")]
    ShutDown {
        /// The method.
        method: String,
    },
    /// The engine cannot do what was asked of it.
    #[error("`{operation}` is not possible here: {reason}")]
    Unsupported {
        /// The method of the pool, or of the actors.
        operation: String,
        /// Why, and what to do instead.
        reason: String,
    },
    /// The worker could not load the pipeline.
    #[error("{worker} could not load the pipeline: {error}")]
    Load {
        /// The worker.
        worker: Worker,
        /// The reason.
        #[source]
        error: LoadError,
    },
    /// No worker process could be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Ray failed to run the call.
    #[cfg(feature = "ray")]
    #[error("`{method}` has no result: {error}")]
    Ray {
        /// The method.
        method: String,
        /// Ray's error.
        #[source]
        error: super::ray::RayError,
    },
    /// The inputs do not match those of the graph, or the graph failed.
    #[error("`{method}` has no result: {error}")]
    Graph {
        /// The method.
        method: String,
        /// The reason.
        #[source]
        error: super::graph::ReplayError,
    },
    /// An argument or a result could not be serialised or deserialised.
    #[error("{part} of `{method}` could not be sent between processes: {reason}")]
    Wire {
        /// The method.
        method: String,
        /// Which part of the call.
        part: CallPart,
        /// What went wrong.
        reason: String,
    },
}

impl CallError {
    /// A call in a fork of the process that has the engine. The engine's threads are not in the
    /// fork.
    pub(crate) fn forked(method: &str) -> Self {
        let reason = "this process is a fork of the one that has the workers, and cannot use them: execute a program instead, or \
                      fork before the workers are started";
        StartError::call(method, reason).into()
    }
}

fn after(actor: &bool) -> &'static str {
    if *actor {
        "; a call of an actor is not retried, since its state is lost: the actor was restarted from the arena"
    } else {
        "; does the method crash on this input?"
    }
}

/// Why a worker process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StartError {
    /// No worker could be started for a call.
    #[error("no worker process for `{method}`: {reason}")]
    Call {
        /// The method.
        method: String,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// One worker of several could not be started.
    #[error("worker {index} could not be started: {reason}")]
    Worker {
        /// Which worker of the pool.
        index: usize,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// A pool of workers could not be started.
    #[error("no worker process could be started: {reason}")]
    Pool {
        /// What went wrong, and what to do.
        reason: String,
    },
    /// Workers for a pipeline could not be started.
    #[error("no worker process for the pipeline `{pipeline}`: {reason}")]
    Pipeline {
        /// The pipeline's type.
        pipeline: String,
        /// What went wrong, and what to do.
        reason: String,
    },
}

impl StartError {
    /// What went wrong, and what to do.
    pub fn reason(&self) -> &str {
        match self {
            Self::Call { reason, .. }
            | Self::Worker { reason, .. }
            | Self::Pool { reason }
            | Self::Pipeline { reason, .. } => reason,
        }
    }

    pub(crate) fn call(method: &str, reason: impl Into<String>) -> Self {
        Self::Call { method: method.to_owned(), reason: reason.into() }
    }
}

/// A part of a call that is sent between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CallPart {
    /// The arguments.
    Arguments,
    /// The result.
    Result,
    /// An argument or the result. The generated code reads the one and writes the other, and does
    /// not say which of them failed.
    ArgumentsOrResult,
    /// The name of the function to run.
    Function,
    /// The call as a whole.
    Call,
}

impl CallPart {
    const ALL: [Self; 5] = [Self::Arguments, Self::Result, Self::ArgumentsOrResult, Self::Function, Self::Call];

    /// Looks up a part by its [`name`](Self::name). Returns [`Call`](Self::Call) if it is unknown.
    pub(crate) fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|part| part.name() == name).unwrap_or(Self::Call)
    }

    /// The name in workers' messages and in error texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arguments => "the arguments",
            Self::Result => "the result",
            Self::ArgumentsOrResult => "an argument or the result",
            Self::Function => "the function",
            Self::Call => "the call",
        }
    }
}

impl fmt::Display for CallPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The stage of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CallPhase {
    /// The caller waits for a place in the queue.
    BeforeQueue,
    /// The call waits in the queue.
    Queued,
    /// A worker loads the pipeline for it.
    Loading(Worker),
    /// A worker runs it.
    Running(Worker),
    /// A thread of this process runs it.
    Thread(Worker),
    /// A worker runs it, together with other calls.
    Batch,
    /// An actor of a Ray cluster runs it, or it waits for one.
    RayActor,
    /// It is a task of a Ray cluster.
    RayTask,
}

impl fmt::Display for CallPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BeforeQueue => f.write_str("while it waited for a place in the queue"),
            Self::Queued => f.write_str("while it waited in the queue"),
            Self::Loading(worker) => write!(f, "while {worker} loaded the pipeline for it"),
            Self::Running(worker) => write!(f, "while {worker} ran it (the worker was replaced)"),
            Self::Thread(worker) => {
                write!(f, "while {worker} ran it (a thread cannot be stopped: it goes on until the method returns)")
            }
            Self::Batch => f.write_str("while it ran in a batch"),
            Self::RayActor => f.write_str("in an actor, or while it waited for one"),
            Self::RayTask => f.write_str("as a Ray task"),
        }
    }
}

/// Identifies a worker by its index in the pool and its process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
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
