//! The local engine: worker processes of this machine, which are this very executable, started again.
//!
//! | file | what |
//! | --- | --- |
//! | `pool` | the engine: calls come in here; starting and shutting down |
//! | `state` | what waits, who is idle, and who does what next |
//! | `hand` | handing work to workers |
//! | `link` | the way to one worker, and what it is busy with |
//! | `answers` | what an answer means |
//! | `lone` | a caller that receives its own answer |
//! | `driver` | one thread for each worker: takes its answers, and heals it |
//! | `keeper` | one thread for all deadlines |
//! | `process` | starting a worker process, and its end |
//! | `child` | waiting for a child process and killing it |
//! | `executable` | how this program is started again |
//! | `worker` | the other side: the life of a worker process |
//! | `transport`, `frame`, `protocol` | how the two talk |
//! | `limits` | which limit of the machine is behind an error |
//! | `broker` | hands arenas to processes that are not workers of ours |
//! | `sys` | all unsafe code |

pub(crate) mod broker;
pub(crate) mod child;
pub(crate) mod deadlines;
pub(crate) mod dispatch;
pub(crate) mod executable;
pub(crate) mod inline_wait;
pub(crate) mod pool;
pub(crate) mod process;
pub(crate) mod protocol;
pub(crate) mod replies;
pub(crate) mod scheduler;
pub(crate) mod supervisor;
pub(crate) mod transport;
pub(crate) mod worker;
pub(crate) mod worker_conn;

use super::settings::Settings;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::pool::Pool;
use super::Engine;
use super::backend::{ActorSpec, Backend, EngineHandle, sealed};
use super::program::Program;
use crate::arena::arena::Arena;
use crate::error::call::{CallError, StartError, Worker};

/// Worker processes of this machine. Cheap to clone: clones are the same workers.
///
/// Most programs need none: [`TaskWrapper::new`](crate::TaskWrapper::new) uses [`LocalPool::shared`].
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
pub struct LocalPool(pub(crate) Arc<Pool>);

impl LocalPool {
    /// Sets up workers of your own.
    pub fn builder() -> LocalPoolBuilder {
        LocalPoolBuilder(Settings::default())
    }

    /// The workers that this process shares: one for each core, started at first use, there until the process ends.
    ///
    /// # Errors
    /// If a worker does not come up; says how it ended.
    pub fn shared() -> Result<Self, CallError> {
        static SHARED: Mutex<Option<LocalPool>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        // What could not be started is tried again by the next who asks: what was missing may be there by then.
        match &*shared {
            Some(local) => Ok(local.clone()),
            None => Ok(shared.insert(Self::builder().start()?).clone()),
        }
    }

    /// The worker processes that are up now.
    pub fn workers(&self) -> Vec<Worker> {
        self.0.workers()
    }

    /// Runs the calls that wait, takes no new ones, and ends the workers. Returns when they are gone.
    ///
    /// The same happens when the last clone is dropped; or [`shut_down_now`](Self::shut_down_now), if that is because the thread panics.
    pub fn shut_down(&self) {
        self.0.end();
    }

    /// Kills the workers at once, whatever they do. Calls that wait or run are errors.
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

    /// How many calls may wait before callers have to. Default: 1024.
    #[must_use]
    pub fn queue(mut self, calls: usize) -> Self {
        self.0.queue = calls.max(1);
        self
    }

    /// How long a worker process may take to come up. Default: one minute.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.0.start_timeout = timeout;
        self
    }

    /// Starts workers of another program than this one: `rzc`, or any other that has this crate in the same version.
    ///
    /// They run graphs, see [`JitTaskWrapper`](crate::jit::JitTaskWrapper), and nothing else: they do not have this program's code.
    #[must_use]
    pub fn program(mut self, program: impl Into<PathBuf>) -> Self {
        self.0.program = Some(program.into());
        self
    }

    /// Starts the workers and waits until all are up.
    ///
    /// # Errors
    /// If a worker does not come up; says how it ended.
    pub fn start(self) -> Result<LocalPool, CallError> {
        start(self.0, None).map(LocalPool)
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

/// This machine: each set of actors is a pool of its own.
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
        Ok(EngineHandle(start(settings, Some(program))?))
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(Self)
    }
}

/// Starts a pool, whose workers load `program` first, all at the same time.
pub(crate) fn start(settings: Settings, program: Option<Arc<Program>>) -> Result<Arc<Pool>, CallError> {
    crate::os::sys::malloc::trim();
    if let (Some(other), Some(own)) = (&settings.program, &program)
        && !own.loader.is_named()
    {
        let pipeline = own.arena.pipeline().to_owned();
        return Err(StartError::Pipeline { pipeline, reason: foreign(other) }.into());
    }
    if settings.program.is_none() {
        executable::check().map_err(|reason| StartError::Pool { reason })?;
    }
    let pool = Pool::start(settings, program)?;
    pool.wait_until_started().inspect_err(|_| pool.abort())?;
    Ok(pool)
}

/// Why workers of another program do not run a pipeline.
fn foreign(program: &std::path::Path) -> String {
    format!(
        "its workers are `{}`, which has not the code of this program; they run graphs of `jit::trace`",
        program.display()
    )
}

/// No user code runs under the engine's locks, and no state is left half-written: a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
