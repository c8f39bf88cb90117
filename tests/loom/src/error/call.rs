//! The variants of the crate's `CallError` that the engine makes.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    Panicked { method: String, worker: Worker, message: String },
    WorkerDied { method: String, worker: Worker, how: String, attempts: u32, allowed: u32, is_actor: bool },
    Deadline { method: String, after: Duration, phase: CallPhase },
    QueueFull { waiting: usize, workers: usize },
    ShutDown { method: String },
    Cancelled { method: String },
    Unsupported { operation: String, reason: String },
    Load { worker: Worker, error: LoadError },
    Start(StartError),
    Graph { method: String, error: String },
    Wire { method: String, part: CallPart, reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StartError {
    Call { method: String, reason: String },
    Worker { index: usize, reason: String },
    Pool { reason: String },
}

impl StartError {
    pub(crate) fn call(method: &str, reason: impl Into<String>) -> Self {
        Self::Call { method: method.to_owned(), reason: reason.into() }
    }
}

impl From<StartError> for CallError {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallPart {
    Arguments,
    Call,
}

impl CallPart {
    pub(crate) fn named(name: &str) -> Self {
        if name == "the arguments" { Self::Arguments } else { Self::Call }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallPhase {
    BeforeQueue,
    Queued,
    Loading(Worker),
    Running(Worker),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Worker {
    pub(crate) index: usize,
    pub(crate) pid: u32,
}

impl std::fmt::Display for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "worker {} (pid {})", self.index, self.pid)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadError;

impl LoadError {
    pub(crate) fn is_for_want_of_something(&self) -> bool {
        false
    }
}
