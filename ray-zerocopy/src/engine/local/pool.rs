//! The public face of the local engine: `LocalPool` and its builder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::local_engine::LocalEngine;
use crate::arena::arena::Arena;
use crate::engine::Engine;
use crate::engine::backend::{ActorSpec, Backend, EngineHandle, sealed};
use crate::engine::settings::Settings;
use crate::error::call::{CallError, Worker};
use crate::os::sync::Mutex;

/// Worker processes of this machine. Cheap to clone: clones are the same workers.
///
/// Most programs need none: [`TaskWrapper::new`](crate::TaskWrapper::new) uses
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
    /// A builder for a pool of its own.
    pub fn builder() -> LocalPoolBuilder {
        LocalPoolBuilder(Settings::default())
    }

    /// The shared workers of this process: one for each core, started at the first use, and running
    /// until the process ends.
    ///
    /// # Errors
    /// If a worker does not start; the error says how it ended.
    pub fn shared() -> Result<Self, CallError> {
        static SHARED: Mutex<Option<LocalPool>> = Mutex::new(None);
        let mut shared = SHARED.lock();
        // A failed start is tried again by the next call of this function: what was missing may be
        // there by then.
        match &*shared {
            Some(local) => Ok(local.clone()),
            None => Ok(shared.insert(Self::builder().start()?).clone()),
        }
    }

    /// The worker processes that are up now.
    pub fn workers(&self) -> Vec<Worker> {
        self.0.workers()
    }

    /// Runs the calls that wait, takes no new ones, and ends the workers. Returns when they are
    /// gone.
    ///
    /// The same happens when the last clone is dropped. If that is because the thread panics,
    /// [`shut_down_now`](Self::shut_down_now) happens instead.
    pub fn shut_down(&self) {
        self.0.end();
    }

    /// Kills the workers at once. Calls that wait or run end with an error.
    pub fn shut_down_now(&self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for LocalPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalPool").field("workers", &self.workers()).finish_non_exhaustive()
    }
}

/// Sets up a [`LocalPool`] engine.
#[derive(Debug, Clone)]
pub struct LocalPoolBuilder(Settings);

impl LocalPoolBuilder {
    /// How many worker processes. Default: one for each core.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.0.workers = workers.max(1);
        self
    }

    /// How many threads each worker computes with. Default: the cores divided among the workers.
    #[must_use]
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.0.threads = Some(threads.max(1));
        self
    }

    /// How many calls the queue takes before a caller has to wait for space. Default: 1024.
    #[must_use]
    pub fn queue(mut self, calls: usize) -> Self {
        self.0.queue = calls.max(1);
        self
    }

    /// How long a worker process may take to start. Default: one minute.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.0.start_timeout = timeout;
        self
    }

    /// Starts workers of another program than this one: `rzc`, or any other that has this crate in
    /// the same version.
    ///
    /// They run graphs only, see [`JitTaskWrapper`](crate::jit::JitTaskWrapper), because they do
    /// not have this program's code.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.0.program = Some(program.into());
        self
    }

    /// Starts the workers, and waits until all of them are ready.
    ///
    /// # Errors
    /// If a worker does not start; the error says how it ended.
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

/// This machine as a place for actors: each set of actors is a pool of its own, and tasks use the
/// shared pool.
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
