//! Settings of a worker pool.

use std::path::PathBuf;
use std::time::Duration;

/// Settings of a worker pool.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub workers: usize,
    pub threads: Option<usize>,
    pub queue: usize,
    pub start_timeout: Duration,
    /// Executable of the workers, if it is not this program.
    pub program: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { workers: cores(), threads: None, queue: 1024, start_timeout: Duration::from_secs(60), program: None }
    }
}

impl Settings {
    /// Number of threads for each worker: the cores divided by the number of workers, and at least
    /// one.
    pub(crate) fn threads_per_worker(&self) -> usize {
        self.threads.unwrap_or_else(|| (cores() / self.workers.max(1)).max(1))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
