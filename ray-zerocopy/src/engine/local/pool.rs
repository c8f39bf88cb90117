//! Public API of the local engine: `LocalPool` and its builder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::local_engine::LocalEngine;
use crate::arena::arena::Arena;
use crate::engine::Engine;
use crate::engine::backend::{ActorSpec, Backend, EngineHandle, sealed};
use crate::engine::pool_size::PoolSize;
use crate::engine::queue::report::{Drained, PoolReport};
use crate::engine::settings::{Cores, Settings};
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

    /// Runs the queued calls and rejects new ones, as [`shut_down`](Self::shut_down) does, but not longer
    /// than `timeout`: the calls that are left then fail. Returns how many those are.
    pub fn drain(&self, timeout: Duration) -> Drained {
        Drained::new(self.0.drain(timeout))
    }

    /// Replaces each worker process, one after the other: a worker finishes its call, gets no further
    /// one, and ends. The next worker is replaced when the new process has started. No call fails.
    ///
    /// A worker above the least number of an elastic pool is started again when a call needs it. A new
    /// process loads a pipeline with the first call of it.
    ///
    /// # Errors
    /// If a new process cannot be started, or the pool is shut down meanwhile. The other workers then
    /// keep their processes.
    pub fn restart(&self) -> Result<(), CallError> {
        self.0.restart()
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

    /// Lets each of the workers and this process keep memory for the large messages of one to the other,
    /// and use it again: at most `bytes` bytes for each worker and direction. Default: none.
    ///
    /// A message of more than 64 KiB, such as a large tensor, is otherwise written to fresh memory each
    /// time, which costs several times the copy. The price is a guarantee: memory that is used again is
    /// not sealed. A message cannot change because another process, or safe code of this one, writes
    /// to it. But a defect in unsafe code of its sender, which keeps the memory mapped for writing, could
    /// change a tensor that its receiver reads. And the memory stays allocated until the worker ends.
    ///
    /// A message that finds no free memory within the limit is sent in fresh, sealed memory, as without
    /// this. So tensors that are kept for long cost speed, and never a failure.
    #[must_use]
    pub fn recycled_memory(mut self, bytes: u64) -> Self {
        self.0.recycled_memory = Some(bytes);
        self
    }

    /// Sets the number of threads that each worker computes with. Default: the number of cores
    /// divided by the number of workers.
    #[must_use]
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.0.threads = Some(threads.max(1));
        self
    }

    /// Sets the niceness of the workers: from -20, which is scheduled first, to 19, which is last. Default:
    /// that of this process. Less than that needs a permission, see `ulimit -e`.
    #[must_use]
    pub fn niceness(mut self, niceness: i32) -> Self {
        self.0.niceness = Some(niceness);
        self
    }

    /// Gives each of the workers cores of its own, as many as it has threads. They are shared if there are
    /// not enough. By default, the kernel may move them to any core of this process.
    #[must_use]
    pub fn pin_cores(mut self) -> Self {
        self.0.cores = Cores::Own;
        self
    }

    /// Sets the cores of each of the workers, in their order. After the last list comes the first one
    /// again. Cores that this process may not use are an error of the start.
    #[must_use]
    pub fn affinity(mut self, cores: impl IntoIterator<Item: Into<Vec<usize>>>) -> Self {
        self.0.cores = Cores::Listed(cores.into_iter().map(Into::into).collect());
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

    /// The actors have processes of their own, with the cores, the niceness and the recycled memory of this
    /// pool.
    fn actors(&self, mut spec: ActorSpec) -> crate::error::Result<EngineHandle> {
        spec.settings.adopt(self.0.settings());
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
        let ActorSpec { settings, program, has_streams: _ } = spec;
        Ok(EngineHandle(LocalEngine::start(settings, Some(program))?))
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(Self)
    }
}
