//! Public API of the local engine: `LocalPool` and its builder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::local_engine::LocalEngine;
use crate::arena::arena::Arena;
use crate::engine::Engine;
use crate::engine::backend::{ActorSpec, Backend, EngineHandle, sealed};
use crate::engine::pool_size::PoolSize;
use crate::engine::queue::report::PoolReport;
use crate::engine::settings::Settings;
use crate::error::call::{CallError, Worker};
use crate::os::sync::Mutex;

/// Pool of worker processes on this machine. Cheap to clone; clones share the workers.
///
/// Most programs do not create one: [`TaskWrapper::new`](crate::TaskWrapper::new) uses
/// [`LocalPool::shared`].
///
/// ```
/// use ray_zerocopy::LocalPool;
/// # fn main() -> ray_zerocopy::Result<()> {
/// ray_zerocopy::init();
/// let engine = LocalPool::builder().workers(2).threads_per_worker(1).start()?;
/// assert_eq!(engine.workers().len(), 2);
/// engine.shut_down();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LocalPool(Arc<LocalEngine>);

impl LocalPool {
    /// Creates a builder for a separate pool.
    pub fn builder() -> LocalPoolBuilder {
        LocalPoolBuilder(Settings::default())
    }

    /// Returns the shared pool of this process. It has one worker for each core, which start at the
    /// first use and run until the process ends.
    ///
    /// # Errors
    /// If a worker does not start. The error contains the reason.
    pub fn shared() -> Result<Self, CallError> {
        static SHARED: Mutex<Option<LocalPool>> = Mutex::new(None);
        let mut shared = SHARED.lock();
        // Errors are not cached: the next call may succeed.
        match &*shared {
            Some(local) => Ok(local.clone()),
            None => Ok(shared.insert(Self::builder().start()?).clone()),
        }
    }

    /// Returns the workers that currently have a process.
    pub fn workers(&self) -> Vec<Worker> {
        self.0.workers()
    }

    /// Returns how the pool has grown and shrunk, and why it did not grow.
    pub fn report(&self) -> PoolReport {
        self.0.report()
    }

    /// Runs the queued calls, rejects new ones, and ends the workers. Returns when they have ended.
    ///
    /// Dropping the last clone has the same effect, or that of
    /// [`shut_down_now`](Self::shut_down_now) if the thread panics.
    pub fn shut_down(&self) {
        self.0.end();
    }

    /// Kills the workers immediately. Queued and running calls fail.
    pub fn shut_down_now(&self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for LocalPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPool").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

/// Builder of a [`LocalPool`].
#[derive(Debug, Clone)]
pub struct LocalPoolBuilder(Settings);

impl LocalPoolBuilder {
    /// Sets the number of worker processes: a number, or a range in which it changes with the load.
    /// Default: one for each core.
    ///
    /// With a range, the pool starts with its first number of workers, which may be 0. It grows when
    /// calls wait, if there is memory for another worker, and shrinks when workers have been
    /// [idle](Self::idle). A range without a worker is an error of the start.
    #[must_use]
    pub fn workers(mut self, workers: impl Into<PoolSize>) -> Self {
        self.0.workers = workers.into();
        self
    }

    /// Sets the time without a call after which a worker above the least number ends. Only for a
    /// [range](Self::workers) of workers. Default: 30 seconds.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.0.idle = idle;
        self
    }

    /// Sets the memory, in bytes, that stays available to other programs when the pool grows. It does
    /// not grow into it. Default: 0, so that a worker is started if it just fits.
    #[must_use]
    pub fn memory_reserve(mut self, bytes: u64) -> Self {
        self.0.memory_reserve = bytes;
        self
    }

    /// Sets the number of threads that each worker computes with. Default: the number of cores
    /// divided by the number of workers.
    #[must_use]
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.0.threads = Some(threads.max(1));
        self
    }

    /// Sets the capacity of the queue. Callers wait for space when it is full. Default: 1024 calls.
    #[must_use]
    pub fn queue(mut self, calls: usize) -> Self {
        self.0.queue = calls.max(1);
        self
    }

    /// Sets the timeout for the start of a worker process. Default: one minute.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.0.start_timeout = timeout;
        self
    }

    /// Runs another program as workers: `rzc`, or any other that has this crate in the same
    /// version.
    ///
    /// These workers only run graphs, see [`JitTaskWrapper`](crate::jit::JitTaskWrapper), because
    /// they do not have this program's code.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.0.program = Some(program.into());
        self
    }

    /// Starts the workers, and waits until all of them are ready.
    ///
    /// # Errors
    /// If a worker does not start. The error contains the reason.
    pub fn start(self) -> Result<LocalPool, CallError> {
        LocalEngine::start(self.0, None).map(LocalPool)
    }
}

impl sealed::Sealed for LocalPool {}

impl Backend for LocalPool {
    fn adopt(&self, arena: Arena) -> crate::error::Result<Arena> {
        Ok(arena.handed_over()?)
    }

    fn tasks(&self) -> crate::error::Result<EngineHandle> {
        Ok(EngineHandle(Arc::clone(&self.0) as _))
    }

    fn actors(&self, spec: ActorSpec) -> crate::error::Result<EngineHandle> {
        Machine.actors(spec)
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }
}

/// This machine as a backend: each set of actors gets a separate pool, and tasks use the shared
/// pool.
pub(crate) struct Machine;

impl sealed::Sealed for Machine {}

impl Backend for Machine {
    fn adopt(&self, arena: Arena) -> crate::error::Result<Arena> {
        Ok(arena.handed_over()?)
    }

    fn tasks(&self) -> crate::error::Result<EngineHandle> {
        LocalPool::shared()?.tasks()
    }

    fn actors(&self, spec: ActorSpec) -> crate::error::Result<EngineHandle> {
        let ActorSpec { settings, program } = spec;
        Ok(EngineHandle(LocalEngine::start(settings, Some(program))?))
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(Self)
    }
}
