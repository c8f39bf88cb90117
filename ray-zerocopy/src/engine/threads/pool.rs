//! Public API of the thread engine: `Threads` and its builder.

use std::sync::Arc;
use std::time::Duration;

use super::thread_engine::ThreadEngine;
use crate::arena::arena::Arena;
use crate::engine::Engine;
use crate::engine::backend::{ActorSpec, Backend, EngineHandle, sealed};
use crate::engine::pool_size::PoolSize;
use crate::engine::queue::report::{Drained, PoolReport};
use crate::engine::settings::{Cores, Settings};
use crate::error::call::{CallError, Worker};
use crate::os::sync::Mutex;

/// Threads of this process as workers. Cheap to clone; clones share the threads.
///
/// A call costs a microsecond or two, and its tensors are not copied. Each thread loads the
/// pipeline once for itself: the weights are borrowed, and only the copied fields exist once for
/// each thread. What threads cannot give: a crash of native code ends the program, and a method
/// that does not return cannot be stopped.
///
/// The threads of tasks start at the first call of [`TaskWrapper::on`](crate::TaskWrapper::on).
/// Each [`spawn`](crate::ActorWrapper::spawn) of actors starts its own.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use ray_zerocopy::{ActorWrapper, Pipeline, TaskWrapper, Threads};
///
/// #[derive(Pipeline)]
/// #[pipeline(init = Model::new)]
/// struct Model { head: Linear }
///
/// #[ray_zerocopy::remote]
/// impl Model {
///     pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
///
///     pub fn predict(&self, x: Tensor<2>) -> Tensor<2> { self.head.forward(x) }
/// }
///
/// fn main() -> ray_zerocopy::Result<()> {
///     let model = Model::new(&Device::flex());
///     let threads = Threads::new(2);
///     let tasks = TaskWrapper::on(&threads, &model)?;
///     let x = Tensor::<2>::ones([3, 4], &Device::flex());
///     assert_eq!(tasks.predict(x.clone()).wait()?.into_data(), model.predict(x.clone()).into_data());
///
///     let actors = ActorWrapper::on(&threads, &model)?.spawn(2)?;
///     assert_eq!(actors.predict(x).wait()?.dims(), [3, 2]);
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Threads(Arc<Pool>);

struct Pool {
    settings: Settings,
    engine: Mutex<Option<Arc<ThreadEngine>>>,
}

impl Threads {
    /// Uses this number of threads, or a range in which it changes with the load. The cores are divided
    /// among them.
    pub fn new(workers: impl Into<PoolSize>) -> Self {
        Self::builder().workers(workers).build()
    }

    /// Creates a builder.
    pub fn builder() -> ThreadsBuilder {
        ThreadsBuilder(Settings::default())
    }

    /// The threads that run tasks. Empty before the first
    /// [`TaskWrapper::on`](crate::TaskWrapper::on).
    pub fn workers(&self) -> Vec<Worker> {
        let engine = self.0.engine.lock().clone();
        engine.map(|engine| engine.workers()).unwrap_or_default()
    }

    /// Returns how the pool of tasks has grown and shrunk. Returns `None` before the first
    /// [`TaskWrapper::on`](crate::TaskWrapper::on).
    pub fn report(&self) -> Option<PoolReport> {
        let engine = self.0.engine.lock().clone();
        engine.and_then(|engine| engine.pool())
    }

    /// Runs the queued tasks, rejects new ones, and ends the threads. Returns when they have ended.
    /// A later [`TaskWrapper::on`](crate::TaskWrapper::on) starts new ones.
    ///
    /// Dropping the last clone and the last wrapper has the same effect.
    pub fn shut_down(&self) {
        self.end(ThreadEngine::end);
    }

    /// Runs the queued tasks and rejects new ones, as [`shut_down`](Self::shut_down) does, but not longer
    /// than `timeout`: the tasks that are left then fail. Returns how many those are. A thread that runs
    /// a method ends when the method returns.
    pub fn drain(&self, timeout: Duration) -> Drained {
        let mut left = 0;
        self.end(|engine| left = engine.drain(timeout));
        Drained::new(left)
    }

    /// Makes each thread load its pipelines again, one after the other. A thread finishes its call
    /// first, and no call fails. A pipeline is loaded with the next call of it.
    ///
    /// # Errors
    /// If the threads are shut down meanwhile.
    pub fn restart(&self) -> Result<(), CallError> {
        let engine = self.0.engine.lock().clone();
        engine.map_or(Ok(()), |engine| engine.restart())
    }

    /// Answers queued and running tasks with errors. A thread that runs a method ends when the
    /// method returns.
    pub fn shut_down_now(&self) {
        self.end(ThreadEngine::abort);
    }

    /// Ends the engine, which stays in its place meanwhile: another thread may be more impatient.
    fn end(&self, end: impl FnOnce(&ThreadEngine)) {
        let Some(engine) = self.0.engine.lock().clone() else { return };
        end(&engine);
        let ended = self.0.engine.lock().take_if(|current| Arc::ptr_eq(current, &engine));
        drop(ended);
    }

    fn start(&self) -> Result<Arc<ThreadEngine>, CallError> {
        let mut engine = self.0.engine.lock();
        match &*engine {
            Some(engine) => Ok(Arc::clone(engine)),
            None => Ok(Arc::clone(engine.insert(ThreadEngine::start(&self.0.settings, None)?))),
        }
    }
}

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Threads").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// Builder of [`Threads`].
#[derive(Debug, Clone)]
pub struct ThreadsBuilder(Settings);

impl ThreadsBuilder {
    /// Sets the number of threads that run calls: a number, or a range in which it changes with the load.
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

    /// Sets the number of threads that each worker computes with, itself included. Default: the
    /// number of cores divided by the number of workers.
    #[must_use]
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.0.threads = Some(threads.max(1));
        self
    }

    /// Sets the niceness of the threads: from -20, which is scheduled first, to 19, which is last. Default:
    /// that of this process. Less than that needs a permission, see `ulimit -e`.
    #[must_use]
    pub fn niceness(mut self, niceness: i32) -> Self {
        self.0.niceness = Some(niceness);
        self
    }

    /// Gives each of the threads cores of its own, as many as it has threads. They are shared if there are
    /// not enough. By default, the kernel may move them to any core of this process.
    #[must_use]
    pub fn pin_cores(mut self) -> Self {
        self.0.cores = Cores::Own;
        self
    }

    /// Sets the cores of each of the threads, in their order. After the last list comes the first one
    /// again. Cores that this process may not use are an error of the start.
    #[must_use]
    pub fn affinity(mut self, cores: impl IntoIterator<Item: Into<Vec<usize>>>) -> Self {
        self.0.cores = Cores::Listed(cores.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the capacity of the queue of tasks. Callers wait for space when it is full. Default:
    /// 1024 calls.
    #[must_use]
    pub fn queue(mut self, calls: usize) -> Self {
        self.0.queue = calls.max(1);
        self
    }

    /// Creates the backend. The threads start when they are needed.
    pub fn build(self) -> Threads {
        Threads(Arc::new(Pool { settings: self.0, engine: Mutex::default() }))
    }
}

impl sealed::Sealed for Threads {}

impl Backend for Threads {
    fn adopt(&self, arena: Arena) -> crate::error::Result<Arena> {
        Ok(arena)
    }

    fn tasks(&self) -> crate::error::Result<EngineHandle> {
        Ok(EngineHandle(self.start()?))
    }

    fn actors(&self, spec: ActorSpec) -> crate::error::Result<EngineHandle> {
        let ActorSpec { mut settings, program, has_streams: _ } = spec;
        settings.threads = settings.threads.or(self.0.settings.threads);
        settings.adopt(&self.0.settings);
        Ok(EngineHandle(ThreadEngine::start(&settings, Some(program))?))
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }
}
