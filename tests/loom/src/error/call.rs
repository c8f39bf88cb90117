//! The variants of the crate's `CallError` that the engine makes.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CallError {
    Panicked { method: String, worker: Worker, message: String },
    WorkerDied { method: String, worker: Worker, how: String, attempts: u32, allowed: u32, actor: bool },
    Deadline { method: String, after: Duration, place: String },
    QueueFull { waiting: usize, workers: usize },
    ShutDown { method: String },
    Load { worker: Worker, error: LoadError },
    Start { method: String, reason: String },
    Graph { method: String, error: String },
    Wire { method: String, what: String, reason: String },
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
