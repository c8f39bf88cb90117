//! Settings of a worker pool.

use std::path::PathBuf;
use std::time::Duration;

use super::pool_size::PoolSize;

/// Settings of a worker pool.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub workers: PoolSize,
    /// Time without a call after which a worker above the least number ends.
    pub idle: Duration,
    /// Bytes of memory that a pool leaves available when it grows.
    pub memory_reserve: u64,
    pub threads: Option<usize>,
    pub queue: usize,
    pub start_timeout: Duration,
    /// Executable of the workers, if it is not this program.
    pub program: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: PoolSize::fixed(cores()),
            idle: Duration::from_secs(30),
            memory_reserve: 0,
            threads: None,
            queue: 1024,
            start_timeout: Duration::from_secs(60),
            program: None,
        }
    }
}

impl Settings {
    /// Number of threads for each worker: the cores divided by the largest number of workers, and at
    /// least one.
    pub(crate) fn threads_per_worker(&self) -> usize {
        self.threads.unwrap_or_else(|| (cores() / self.workers.max.max(1)).max(1))
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
