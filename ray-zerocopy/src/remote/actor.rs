//! Actors: processes that load once and serve many calls, with state of their own.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::Remote;
use super::actors::Actors;
use super::caller::{Caller, Options, STREAM_BUFFER, prewarm, program};
use super::generations::Generations;
use super::ticket::{Ticket, TicketData};
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::device::DeviceSpec;
use crate::engine::backend::{ActorSpec, Backend, EngineHandle};
use crate::engine::live_programs::run_on;
use crate::engine::local::Machine;
use crate::engine::pool_size::PoolSize;
use crate::engine::served::Prewarm;
use crate::engine::settings::{Cores, Settings};
use crate::error::Result;
use crate::error::device::DeviceError;
use crate::error::ticket::TicketError;
use crate::holder;
use crate::pipeline::load::Loaded;
use crate::pipeline::load::load;
use crate::pipeline::rebuild::Root;
use crate::pipeline::share::share;
use crate::report::processes::report_all;
use crate::report::table::Report;

/// A cheap handle of a shared pipeline, which can be serialised and sent to any process of this
/// machine and user.
///
/// A process that has the handle can [`load`](Self::load) the pipeline itself, or
/// [`spawn`](Self::spawn) processes that serve its methods. Both borrow the same weights.
///
/// # Other processes
/// [`export`](Self::export) returns a [`Ticket`], which is plain data without weights. It names a
/// socket of the process that made the arena, and a secret. [`Ticket::open`] requests the arena's
/// memfd there. So a ticket is valid as long as that process runs, which keeps the arena for it
/// until [`withdraw`](Self::withdraw). Afterwards, opening it is an error that says so. Processes
/// that have received the arena keep it.
///
/// Serialising a handle exports it, and deserialising one opens its ticket.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use ray_zerocopy::{ActorWrapper, Pipeline};
///
/// #[derive(Pipeline)]
/// #[pipeline(init = Counter::new)]
/// struct Counter { head: Linear, #[pipeline(skip)] calls: usize }
///
/// #[ray_zerocopy::remote]
/// impl Counter {
///     pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device), calls: 0 } }
///
///     pub fn count(&mut self) -> usize { self.calls += 1; self.calls }
/// }
///
/// fn main() -> ray_zerocopy::Result<()> {
///     ray_zerocopy::init();
///     let shared = ActorWrapper::new(&Counter::new(&Device::flex()))?;
///     let actors = shared.spawn(2)?;
///     let first = actors.actor(0);
///     assert_eq!((first.count().wait()?, first.count().wait()?), (1, 2));
///     assert_eq!(actors.actor(1).count().wait()?, 1);     // each actor has its own state
///
///     let here = shared.load()?;                          // or in this process
///     assert!(here.copied().is_empty());
///     Ok(())
/// }
/// ```
pub struct ActorWrapper<P> {
    arena: Arena,
    device: DeviceSpec,
    strict: bool,
    memory: MemoryPolicy,
    settings: Settings,
    deadline: Option<Duration>,
    prewarm: Option<Prewarm>,
    backend: Arc<dyn Backend>,
    pipeline: PhantomData<fn() -> P>,
}

impl<P: Root> ActorWrapper<P> {
    /// Shares a pipeline.
    ///
    /// # Errors
    /// If the pipeline cannot be shared.
    pub fn new(pipeline: &P) -> Result<Self> {
        Ok(Self::from_arena(share(pipeline)?))
    }

    /// Shares a pipeline whose actors run on a backend of your choice: on this machine, as with
    /// [`new`](Self::new), or on a Ray cluster.
    ///
    /// # Errors
    /// If the pipeline cannot be shared.
    pub fn on(backend: &impl Backend, pipeline: &P) -> Result<Self> {
        Self::from_arena_on(backend, share(pipeline)?)
    }

    /// As [`from_arena`](Self::from_arena), with actors on a backend of your choice.
    ///
    /// # Errors
    /// If the arena cannot be moved to the backend.
    pub fn from_arena_on(backend: &impl Backend, arena: Arena) -> Result<Self> {
        Ok(Self { backend: backend.handle(), ..Self::from_arena(backend.adopt(arena)?) })
    }

    /// Wraps a pipeline that has been shared already.
    pub fn from_arena(arena: Arena) -> Self {
        Self {
            backend: Arc::new(Machine),
            arena,
            device: DeviceSpec::Cpu,
            strict: false,
            memory: MemoryPolicy::default(),
            settings: Settings::default(),
            deadline: None,
            prewarm: None,
            pipeline: PhantomData,
        }
    }

    /// Device on which the pipeline computes: `"cpu"` (the default), `"cuda:1"`, `"wgpu:0"`,
    /// `"libtorch"`; see [`device()`](crate::device()).
    ///
    /// # Errors
    /// If it is not a device. A device that is not available is an error of [`load`](Self::load)
    /// and [`spawn`](Self::spawn).
    pub fn device(mut self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Self> {
        self.device = DeviceSpec::of(device)?;
        Ok(self)
    }

    /// Makes it an error if a weight has to be copied, because the device or the weight's dtype
    /// cannot borrow.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Memory policy of the weights. Default: no huge pages, prefaulting, locking or replicas.
    ///
    /// This process creates huge pages, for all processes that map the weights. With
    /// [`HugePages::Now`](crate::memory::HugePages::Now) this returns when they exist. It makes
    /// [`Replicas`](crate::memory::Replicas) in [`spawn`](Self::spawn), for the NUMA nodes of the actors. Each process
    /// prefaults and locks for itself, before it loads the pipeline: actors, this process in
    /// [`load`](Self::load), and processes that get the serialised handle. A policy that cannot be
    /// applied is not an error. Its outcome is in [`Actors::report`], and in
    /// [`Arena::memory_status`] for this process.
    #[must_use]
    pub fn memory(mut self, memory: MemoryPolicy) -> Self {
        self.arena.apply_policy(memory.once());
        self.memory = memory;
        self
    }

    /// Number of threads with which each actor computes. Default: the cores divided among the
    /// actors.
    #[must_use]
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.settings.threads = Some(threads.max(1));
        self
    }

    /// Sets the niceness of the actors: from -20, which is scheduled first, to 19, which is last. Default:
    /// that of this process. Less than that needs a permission, see `ulimit -e`.
    #[must_use]
    pub fn niceness(mut self, niceness: i32) -> Self {
        self.settings.niceness = Some(niceness);
        self
    }

    /// Gives each of the actors cores of its own, as many as it has threads. They are shared if there are
    /// not enough. By default, the kernel may move them to any core of this process.
    #[must_use]
    pub fn pin_cores(mut self) -> Self {
        self.settings.cores = Cores::Own;
        self
    }

    /// Sets the cores of each of the actors, in their order. After the last list comes the first one
    /// again. Cores that this process may not use are an error of [`spawn`](Self::spawn), and so is any
    /// placement on a Ray cluster, whose nodes have cores of their own.
    #[must_use]
    pub fn affinity(mut self, cores: impl IntoIterator<Item: Into<Vec<usize>>>) -> Self {
        self.settings.cores = Cores::Listed(cores.into_iter().map(Into::into).collect());
        self
    }

    /// Lets each of the actors and this process keep memory for the large messages of one to the other,
    /// and use it again: at most `bytes` bytes for each actor and direction. Default: none.
    ///
    /// A message of more than 64 KiB, such as a large tensor, is otherwise written to fresh memory each
    /// time, which costs several times the copy. The price is a guarantee: memory that is used again is
    /// not sealed. A message cannot change because another process, or safe code of this one, writes
    /// to it. But a defect in unsafe code of its sender, which keeps the memory mapped for writing, could
    /// change a tensor that its receiver reads. And the memory stays allocated until the actor ends.
    ///
    /// A message that finds no free memory within the limit is sent in fresh, sealed memory, as without
    /// this. So tensors that are kept for long cost speed, and never a failure.
    ///
    /// Actors on threads share the memory of this process, and those on a Ray cluster get messages from
    /// Ray: this has no effect on them.
    #[must_use]
    pub fn recycled_memory(mut self, bytes: u64) -> Self {
        self.settings.recycled_memory = Some(bytes);
        self
    }

    /// Capacity of the queue: callers block when so many calls wait. Default: 1024.
    #[must_use]
    pub fn queue(mut self, calls: usize) -> Self {
        self.settings.queue = calls.max(1);
        self
    }

    /// Deadline of a call, which includes its time in the queue. An actor that still runs the call
    /// then is killed and replaced.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
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
    /// # use ray_zerocopy::{Pipeline, ActorWrapper};
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
    /// let actors = ActorWrapper::new(&model)?.prewarm(|model| {
    ///     model.predict(Tensor::ones([1, 4], &Device::flex()));
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The function is not part of an exported or serialised handle.
    ///
    /// # Errors
    /// If workers cannot call the function, because it is in a shared library.
    #[track_caller]
    pub fn prewarm(mut self, function: fn(&mut P)) -> Result<Self> {
        self.prewarm = Some(prewarm(function, std::panic::Location::caller())?);
        Ok(self)
    }

    /// Executable of the actors, if it is not this one.
    pub(crate) fn program(mut self, program: std::path::PathBuf) -> Self {
        self.settings.program = Some(program);
        self
    }

    /// Timeout for the start of all actors. Default: one minute.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.settings.start_timeout = timeout;
        self
    }

    /// Loads the pipeline in this process, on the wrapper's device. Its weights are borrowed from
    /// the arena.
    ///
    /// # Errors
    /// If the device is not available, or the arena does not fit the pipeline.
    pub fn load(&self) -> Result<Loaded<P>> {
        self.load_on(self.device)
    }

    /// Loads the pipeline in this process, on another device than the wrapper's.
    ///
    /// # Errors
    /// If the device is not available, or the arena does not fit the pipeline.
    pub fn load_on(&self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Loaded<P>> {
        let device = crate::device::device(device)?;
        self.arena.follow(self.memory);
        let loaded: Loaded<P> = load(&self.arena, &device)?;
        Ok(if self.strict { loaded.strict()? } else { loaded })
    }

    /// The shared weights.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Memory use of each process that maps the weights, by the kernel's figures: this process,
    /// actors, and processes that opened a serialised handle. Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        report_all(&self.arena).map_err(Into::into)
    }

    /// Fetches the arena of a ticket and wraps it.
    pub(super) fn redeem(ticket: &TicketData) -> Result<Self, TicketError> {
        let arena = holder::ticket::fetch(&ticket.ticket)?;
        if arena.id() != ticket.arena {
            let (expected, found) = (ticket.arena.to_string(), arena.id().to_string());
            return Err(TicketError::OtherArena { expected, found });
        }
        // Another process made the arena, so its bytes are checked once before they are used.
        let mut wrapper = Self::from_arena(arena.verified()?);
        wrapper.device = DeviceSpec::of(&ticket.device)?;
        wrapper.strict = ticket.strict;
        wrapper.memory = ticket.memory;
        wrapper.settings.threads = ticket.threads;
        wrapper.settings.queue = ticket.queue.max(1);
        wrapper.deadline = ticket.deadline;
        Ok(wrapper)
    }

    /// Revokes the tickets that were exported or serialised. Tickets that have not been opened by
    /// now are void, and this process no longer keeps the arena for them.
    pub fn withdraw(&self) {
        holder::ticket::withdraw(&self.arena);
    }
}

impl<P: Remote> ActorWrapper<P> {
    /// Starts `actors` processes (at least one), which load the pipeline at the same time, and
    /// waits until all have loaded it.
    ///
    /// # Errors
    /// If a process cannot be started or cannot load the pipeline. The error names the process.
    pub fn spawn(&self, actors: usize) -> Result<Actors<P>> {
        let arena = self.backend.adopt(self.arena.clone())?;
        let program = program::<P>(arena, self.device.to_string(), self.strict, self.memory, self.prewarm.clone())?;
        let settings = Settings { workers: PoolSize::fixed(actors), ..self.settings.clone() };
        let spec = ActorSpec { settings, program: Arc::clone(&program), has_streams: P::STREAMS };
        let EngineHandle(engine) = self.backend.actors(spec)?;
        let options = Options {
            deadline: self.deadline,
            attempts: 1,
            wait: true,
            actor: true,
            grace: None,
            stream_buffer: STREAM_BUFFER,
            is_probe: false,
        };
        // Workers free it when it has been replaced.
        run_on(&program, &engine);
        let generations = Generations::new(program);
        let caller = Caller { generations, engine, options, pinned: None, batchers: None, state_of: None };
        Ok(Actors::new(caller))
    }
}

impl<P> ActorWrapper<P> {
    /// Offers the arena to other processes of this machine and user, and returns the ticket with
    /// which they [open](Ticket::open) a handle like this one.
    ///
    /// The first ticket of a process starts a thread that listens on a socket. The process keeps
    /// the arena for its tickets until it ends, or until [`withdraw`](Self::withdraw).
    ///
    /// # Errors
    /// If the socket cannot be made, or the arena lies in Ray's object store.
    pub fn export(&self) -> Result<Ticket<P>, TicketError> {
        Ok(Ticket::new(TicketData {
            ticket: holder::ticket::offer(&self.arena)?,
            arena: self.arena.id(),
            device: self.device.to_string(),
            strict: self.strict,
            memory: self.memory,
            threads: self.settings.threads,
            queue: self.settings.queue,
            deadline: self.deadline,
        }))
    }
}

impl<P> Clone for ActorWrapper<P> {
    fn clone(&self) -> Self {
        Self {
            arena: self.arena.clone(),
            device: self.device,
            strict: self.strict,
            memory: self.memory,
            settings: self.settings.clone(),
            deadline: self.deadline,
            prewarm: self.prewarm.clone(),
            backend: Arc::clone(&self.backend),
            pipeline: PhantomData,
        }
    }
}

impl<P> fmt::Debug for ActorWrapper<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ActorWrapper");
        text.field("arena", &self.arena).field("device", &self.device).finish_non_exhaustive()
    }
}
