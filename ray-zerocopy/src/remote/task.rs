//! Tasks: each call runs on any free worker.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::Remote;
use super::batch_method::Batchers;
use super::caller::{Caller, Options, STREAM_BUFFER, prewarm, program};
use super::generations::Generations;
use super::swap::{Canary, Checked, State, Swapped};
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::device::DeviceSpec;
use crate::engine::backend::{Backend, EngineHandle};
use crate::engine::call::batch::batching::Batching;
use crate::engine::live_programs::run_on;
use crate::engine::local::LocalPool;
use crate::engine::program::Program;
use crate::error::Result;
use crate::error::device::DeviceError;
use crate::holder::Following;
use crate::pipeline::share::share;
use crate::report::table::Report;

/// A pipeline whose method calls are tasks: each runs on any free worker process.
///
/// The methods are those that take `&self` in the impl block under `#[ray_zerocopy::remote]`. Each
/// returns a [`Pending`](crate::Pending). A worker keeps the pipeline that it loaded, so a second
/// task rebuilds nothing. But a task may run on any worker, so callers cannot rely on state in
/// workers.
///
/// If its worker dies, a task runs again on another one, with three attempts by default. So tasks
/// have to be repeatable.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use ray_zerocopy::{Pipeline, TaskWrapper};
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
///     ray_zerocopy::init();
///     let device = Device::flex();
///     let model = Model::new(&device);
///     let tasks = TaskWrapper::new(&model)?;
///
///     let x = Tensor::<2>::ones([3, 4], &device);
///     let there = tasks.predict(x.clone()).wait()?;
///     let here = model.predict(x);
///     assert_eq!(here.into_data(), there.into_data());
///     Ok(())
/// }
/// ```
pub struct TaskWrapper<P: Remote> {
    caller: Caller,
    tasks: P::Tasks,
}

impl<P: Remote> TaskWrapper<P> {
    /// Shares a pipeline and runs its methods on this process's shared pool, [`LocalPool::shared`].
    ///
    /// # Errors
    /// If the pipeline cannot be shared, or the workers cannot be started.
    pub fn new(pipeline: &P) -> Result<Self> {
        Self::on(&LocalPool::shared()?, pipeline)
    }

    /// Shares a pipeline and runs its methods on workers of your choice: those of a [`LocalPool`]
    /// or of a Ray cluster.
    ///
    /// # Errors
    /// If the pipeline cannot be shared.
    pub fn on(backend: &impl Backend, pipeline: &P) -> Result<Self> {
        Self::from_arena_on(backend, share(pipeline)?)
    }

    /// Runs the methods of a shared pipeline on this process's shared pool, [`LocalPool::shared`].
    ///
    /// # Errors
    /// If the workers cannot be started, and as [`from_arena_on`](Self::from_arena_on).
    pub fn from_arena(arena: Arena) -> Result<Self> {
        Self::from_arena_on(&LocalPool::shared()?, arena)
    }

    /// Runs the methods of a shared pipeline on workers of your choice.
    ///
    /// # Errors
    /// If the pipeline's code cannot be named to workers. An arena of another pipeline is an error
    /// of the first call.
    pub fn from_arena_on(backend: &impl Backend, arena: Arena) -> Result<Self> {
        let program = program::<P>(backend.adopt(arena)?, "cpu".to_owned(), false, MemoryPolicy::default(), None)?;
        let options = Options {
            deadline: None,
            attempts: 3,
            wait: true,
            actor: false,
            grace: None,
            stream_buffer: STREAM_BUFFER,
            is_probe: false,
        };
        let EngineHandle(engine) = backend.tasks()?;
        let generations = Generations::new(program);
        Ok(Self::assemble(Caller { generations, engine, options, pinned: None, batchers: None, state_of: None }))
    }

    fn assemble(caller: Caller) -> Self {
        run_on(&caller.program(), &caller.engine);
        Self { tasks: P::Tasks::from(caller.clone()), caller }
    }

    fn reprogram(self, device: String, strict: bool, memory: MemoryPolicy) -> Self {
        let old = self.caller.program();
        let program = Program::new(old.arena.clone(), old.loader.clone(), device, strict, memory);
        let program = Arc::new(program.with_prewarm(old.prewarm.clone()));
        self.changed(|caller| caller.generations = Generations::new(program))
    }

    fn with(self, change: impl FnOnce(&mut Options)) -> Self {
        self.changed(|caller| change(&mut caller.options))
    }

    /// A wrapper with other properties. Its calls are not put together with those of this one.
    fn changed(self, change: impl FnOnce(&mut Caller)) -> Self {
        let mut caller = self.caller;
        caller.batchers = caller.batchers.map(|batchers| Batchers::new(batchers.batching));
        change(&mut caller);
        Self::assemble(caller)
    }

    /// Device on which workers compute: `"cpu"` (the default), `"cuda:1"`, `"wgpu:0"`,
    /// `"libtorch"`; see [`device()`](crate::device()).
    ///
    /// # Errors
    /// If it is not a device. A device that the workers do not have is an error of the first call.
    pub fn device(self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Self> {
        let device = DeviceSpec::of(device)?;
        let Program { strict, memory, .. } = *self.caller.program();
        Ok(self.reprogram(device.to_string(), strict, memory))
    }

    /// Makes it an error if a worker has to copy a weight, because its device or the weight's dtype
    /// cannot borrow.
    #[must_use]
    pub fn strict(self) -> Self {
        let Program { ref device, memory, .. } = *self.caller.program();
        let device = device.clone();
        self.reprogram(device, true, memory)
    }

    /// Memory policy of the weights. Default: no huge pages, prefaulting, locking or replicas.
    ///
    /// This process creates huge pages, for all processes that map the weights. With
    /// [`HugePages::Now`](crate::memory::HugePages::Now) this returns when they exist. It also makes
    /// [`Replicas`](crate::memory::Replicas), for the NUMA nodes of the workers. Each worker
    /// prefaults and locks for itself, before it loads the pipeline. A policy that cannot be
    /// applied is not an error. Its outcome is in the [`report`](Self::report).
    #[must_use]
    pub fn memory(self, memory: MemoryPolicy) -> Self {
        let arena = self.arena();
        self.caller.engine.replicate(&arena, memory);
        arena.apply_policy(memory.once());
        let Program { ref device, strict, .. } = *self.caller.program();
        let device = device.clone();
        self.reprogram(device, strict, memory)
    }

    /// Runs a function on each loaded pipeline before its first call: to compile kernels, to fill
    /// caches, or to make the pages of the weights resident. A worker gets no call before that, when
    /// it is started, added or replaced.
    ///
    /// A closure without captured variables is such a function. If it panics, that is an error of the
    /// load, which names this place.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
    /// # use ray_zerocopy::{Pipeline, TaskWrapper};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// # #[ray_zerocopy::remote]
    /// # impl Model {
    /// #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
    /// #   pub fn predict(&self, x: Tensor<2>) -> Tensor<2> { self.head.forward(x) }
    /// # }
    /// # fn main() -> ray_zerocopy::Result<()> {
    /// # ray_zerocopy::init();
    /// # let model = Model::new(&Device::flex());
    /// let tasks = TaskWrapper::new(&model)?.prewarm(|model| {
    ///     model.predict(Tensor::ones([1, 4], &Device::flex()));
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If workers cannot call the function, because it is in a shared library.
    #[track_caller]
    pub fn prewarm(self, function: fn(&mut P)) -> Result<Self> {
        let prewarm = prewarm(function, std::panic::Location::caller())?;
        let old = self.caller.program();
        let Program { arena, loader, device, strict, memory, .. } = &*old;
        let program = Program::new(arena.clone(), loader.clone(), device.clone(), *strict, *memory);
        let program = Arc::new(program.with_prewarm(Some(prewarm)));
        Ok(self.changed(|caller| caller.generations = Generations::new(program)))
    }

    /// Deadline of a call, which includes its time in the queue. A worker that still runs the call
    /// then is killed and replaced.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|options| options.deadline = Some(deadline))
    }

    /// Time for which a worker may go on with a call that has been
    /// [cancelled](crate::Pending::cancel), before it is killed and replaced. By default it is not
    /// killed. A thread cannot be killed.
    #[must_use]
    pub fn cancel_grace(self, grace: Duration) -> Self {
        self.with(|options| options.grace = Some(grace))
    }

    /// Sets the number of items of a [stream](crate::Streaming) that may wait for their reader, at
    /// least one. A worker that is so far ahead waits. Default: 64.
    #[must_use]
    pub fn stream_buffer(self, items: usize) -> Self {
        self.with(|options| options.stream_buffer = items)
    }

    /// Limit on the attempts of a task whose workers die. Default: 3.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        self.with(|options| options.attempts = attempts.max(1))
    }

    /// Makes a call fail at once if the queue is full. By default the calling thread blocks until
    /// there is a place.
    #[must_use]
    pub fn fail_when_full(self) -> Self {
        self.with(|options| options.wait = false)
    }

    /// Puts calls together: calls of a method under `#[remote(batch)]` that wait for a worker run as
    /// one, within the limits. Clones of the wrapper share their batches.
    ///
    /// No call waits while a worker is idle, unless [`max_wait`](Batching::max_wait) allows it. The
    /// result of a call is that of its own rows. If a batch fails, its calls run again one by one, so
    /// that an error is that of the call which caused it.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
    /// use ray_zerocopy::{Batching, Pipeline, TaskWrapper, Threads, gather};
    ///
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// #[ray_zerocopy::remote]
    /// impl Model {
    /// #   #[remote(skip)]
    /// #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
    ///     #[remote(batch)]
    ///     pub fn lengths(&self, texts: Vec<String>) -> Vec<usize> {
    ///         texts.iter().map(String::len).collect()
    ///     }
    /// }
    ///
    /// # fn main() -> ray_zerocopy::Result<()> {
    /// # let model = Model::new(&Device::flex());
    /// let tasks = TaskWrapper::on(&Threads::new(1), &model)?.batch(Batching::default().max_rows(32));
    /// let texts = ["a", "bc", "def"];
    /// let lengths = gather(texts.map(|text| tasks.lengths_one(text.to_owned()))).wait()?;
    /// assert_eq!(lengths, [1, 2, 3]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn batch(self, batching: Batching) -> Self {
        self.changed(|caller| caller.batchers = Some(Batchers::new(batching)))
    }

    /// Moves this wrapper and all of its clones to other weights while it serves calls.
    ///
    /// Each worker loads the new weights between two calls. When every worker has them, new calls run on
    /// them. Calls that were made before run on the old ones, whose memory returns when the last of these
    /// calls has ended. Copied fields are part of an arena, so they change as well. Every call can tell its
    /// weights: [`Pending::arena_id`](crate::Pending::arena_id).
    ///
    /// Loading takes about as long as it takes a new worker, without the start of a process. The call
    /// returns when new calls run on the new weights. A second swap waits for the first one. A worker that
    /// starts later loads the weights that are current then.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
    /// # use ray_zerocopy::{Pipeline, TaskWrapper, Threads, share};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// #[ray_zerocopy::remote]
    /// impl Model {
    /// #   #[remote(skip)]
    /// #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
    ///     pub fn predict(&self, x: Tensor<2>) -> Tensor<2> { self.head.forward(x) }
    /// }
    ///
    /// # fn main() -> ray_zerocopy::Result<()> {
    /// # let device = Device::flex();
    /// let tasks = TaskWrapper::on(&Threads::new(2), &Model::new(&device))?;
    /// let tuned = share(&Model::new(&device))?;
    /// println!("{}", tasks.swap(tuned.clone())?);             // … to … on 2 workers in 0.3ms
    ///
    /// let pending = tasks.predict(Tensor::ones([1, 4], &device));
    /// assert_eq!(pending.arena_id(), Some(tuned.id()));
    /// # pending.wait()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the arena is that of another pipeline or is corrupted, or if a worker cannot load it. All calls go
    /// on with the old weights then.
    pub fn swap(&self, arena: Arena) -> Result<Swapped> {
        self.caller.swap::<P>(arena, State::Discarded, |_| Ok(()))
    }

    /// Does the same as [`swap`](Self::swap) if `check` succeeds, which gets a wrapper for the new weights
    /// alone. When it is called, every worker has loaded them. It cannot swap this wrapper: that
    /// is an error.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
    /// # use ray_zerocopy::{Pipeline, TaskWrapper, Threads, share};
    /// # #[derive(Pipeline)]
    /// # #[pipeline(init = Model::new)]
    /// # struct Model { head: Linear }
    /// # #[ray_zerocopy::remote]
    /// # impl Model {
    /// #   #[remote(skip)]
    /// #   pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
    /// #   pub fn score(&self, x: Tensor<2>) -> f32 { self.head.forward(x).mean().into_scalar() }
    /// # }
    /// # fn main() -> ray_zerocopy::Result<()> {
    /// # let device = Device::flex();
    /// # let tasks = TaskWrapper::on(&Threads::new(1), &Model::new(&device))?;
    /// # let tuned = share(&Model::new(&device))?;
    /// tasks.swap_if(tuned, |tuned| {
    ///     let score = tuned.score(Tensor::ones([1, 4], &device)).wait()?;
    ///     if score.is_finite() { Ok(()) } else { Err(format!("the score is {score}").into()) }
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`swap`](Self::swap), or the error of `check`.
    pub fn swap_if(&self, arena: Arena, check: impl FnOnce(&Self) -> Checked) -> Result<Swapped> {
        self.caller.swap::<P>(arena, State::Discarded, |caller| check(&Self::assemble(caller)))
    }

    /// Gives other weights a share of the calls, from 0 to 1, until the returned value is promoted or
    /// dropped.
    ///
    /// ```no_run
    /// # use ray_zerocopy::{Arena, Remote, TaskWrapper};
    /// # fn example<P: Remote>(tasks: &TaskWrapper<P>, tuned: Arena, is_better: bool) -> ray_zerocopy::Result<()> {
    /// let canary = tasks.canary(tuned, 0.05)?;    // one call of twenty
    /// if is_better {
    ///     println!("{}", canary.promote()?);      // all calls
    /// }                                           // else dropped: none
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`swap`](Self::swap), or if other weights have a share already.
    pub fn canary(&self, arena: Arena, share: f64) -> Result<Canary<P>> {
        self.caller.canary(arena, share)
    }

    /// Swaps the weights when another program of this user sends new ones to a name, as `rzc swap NAME FILE` and
    /// [`holder::swap_followers`](crate::holder::swap_followers) do, until the returned value is dropped. It keeps a
    /// clone of this wrapper. [`holder::follow`](crate::holder::follow) calls a function of yours instead.
    ///
    /// ```no_run
    /// # use ray_zerocopy::{Remote, TaskWrapper};
    /// # fn example<P: Remote>(tasks: &TaskWrapper<P>) -> ray_zerocopy::Result<()> {
    /// let following = tasks.follow("speech")?;    // $ rzc swap speech tuned.bpk
    /// # drop(following);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the user's private folder cannot be used, in which programs find each other.
    pub fn follow(&self, name: &str) -> Result<Following> {
        self.caller.follow::<P>(name, State::Discarded)
    }

    /// The shared weights: those of the last [`swap`](Self::swap).
    pub fn arena(&self) -> Arena {
        self.caller.program().arena.clone()
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Mappings and memory use of each process, by the kernel's figures. Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        self.caller.report()
    }

    /// Loads the pipeline in this process. It borrows from the same arena.
    ///
    /// # Errors
    /// If the device is not available, or a tensor had to be copied and the wrapper is
    /// [`strict`](Self::strict).
    pub fn load(&self) -> Result<crate::pipeline::load::Loaded<P>> {
        let program = self.caller.program();
        program.arena.follow(program.memory);
        let loaded = crate::pipeline::load::load::<P>(&program.arena, &crate::device::device(&program.device)?)?;
        Ok(if program.strict { loaded.strict()? } else { loaded })
    }
}

impl<P: Remote> Deref for TaskWrapper<P> {
    type Target = P::Tasks;

    fn deref(&self) -> &P::Tasks {
        &self.tasks
    }
}

impl<P: Remote> Clone for TaskWrapper<P> {
    fn clone(&self) -> Self {
        Self::assemble(self.caller.clone())
    }
}

impl<P: Remote> fmt::Debug for TaskWrapper<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskWrapper").field("arena", &self.arena()).finish_non_exhaustive()
    }
}
