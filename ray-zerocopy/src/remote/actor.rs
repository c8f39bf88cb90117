//! Actors: processes that load once and serve many calls, with state of their own.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::Remote;
use super::actors::Actors;
use super::caller::{Caller, Options, program};
use super::ticket::{Ticket, TicketData};
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::device::DeviceSpec;
use crate::engine::backend::{ActorSpec, Backend, EngineHandle};
use crate::engine::local::{Machine, broker};
use crate::engine::settings::Settings;
use crate::error::Result;
use crate::error::device::DeviceError;
use crate::error::ticket::TicketError;
use crate::pipeline::load::Loaded;
use crate::pipeline::load::load;
use crate::pipeline::rebuild::Root;
use crate::pipeline::share::share;
use crate::report::processes::report_all;
use crate::report::table::Report;

/// A shared pipeline as a cheap handle that can be serialised and handed to any process of this machine and user.
///
/// Whoever has it can [`load`](Self::load) the pipeline in its own process, or [`spawn`](Self::spawn) processes
/// that serve its methods. Both borrow the same weights.
///
/// # Other processes
/// [`export`](Self::export) returns a [`Ticket`], which is plain data without weights. It names a socket of the process
/// that made the arena, and a secret; [`Ticket::open`] asks there for the arena's memfd. So it is good as long as that
/// process lives, which keeps the arena for it until [`withdraw`](Self::withdraw); afterwards, opening it is an error
/// that says so. Processes that have received the arena keep it.
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

    /// Shares a pipeline whose actors live where you choose: on this machine, as with [`new`](Self::new), or on a Ray
    /// cluster.
    ///
    /// # Errors
    /// If the pipeline cannot be shared.
    pub fn on(backend: &impl Backend, pipeline: &P) -> Result<Self> {
        Self::from_arena_on(backend, share(pipeline)?)
    }

    /// As [`from_arena`](Self::from_arena), with actors where you choose.
    ///
    /// # Errors
    /// If the arena cannot be brought there.
    pub fn from_arena_on(backend: &impl Backend, arena: Arena) -> Result<Self> {
        Ok(Self { backend: backend.handle(), ..Self::from_arena(backend.adopt(arena)?) })
    }

    /// A handle of a pipeline that has been shared already.
    pub fn from_arena(arena: Arena) -> Self {
        Self {
            backend: Arc::new(Machine),
            arena,
            device: DeviceSpec::Cpu,
            strict: false,
            memory: MemoryPolicy::default(),
            settings: Settings::default(),
            deadline: None,
            pipeline: PhantomData,
        }
    }

    /// Device on which the pipeline computes: `"cpu"` (the default), `"cuda:1"`, `"wgpu:0"`, `"libtorch"`; see
    /// [`device()`](crate::device()).
    ///
    /// # Errors
    /// If it is not a device. One that is not there is an error of [`load`](Self::load) and [`spawn`](Self::spawn).
    pub fn device(mut self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Self> {
        self.device = DeviceSpec::of(device)?;
        Ok(self)
    }

    /// Makes it an error if a weight has to be copied, because the device or the weight's dtype cannot borrow.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// How the memory of the weights is treated. Default: as any other memory.
    ///
    /// Huge pages are made by this process, here, for all who map the weights; with
    /// [`HugePages::Now`](crate::memory::HugePages::Now) this returns when they are. Each process prefaults and locks for itself,
    /// before it loads the pipeline: actors, this one in [`load`](Self::load), and whoever gets the serialised handle. A
    /// policy that cannot be applied is no error: what came of it is in [`Actors::report`], and in [`Arena::memory_status`] for
    /// this process.
    #[must_use]
    pub fn memory(mut self, memory: MemoryPolicy) -> Self {
        self.arena.apply_policy(memory.once());
        self.memory = memory;
        self
    }

    /// How many threads each actor computes with. Default: the cores divided among the actors.
    #[must_use]
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.settings.threads = Some(threads.max(1));
        self
    }

    /// How many calls may wait before callers have to. Default: 1024.
    #[must_use]
    pub fn queue(mut self, calls: usize) -> Self {
        self.settings.queue = calls.max(1);
        self
    }

    /// How long a call may take, with its time in the queue. An actor that is still busy then is killed and replaced.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Starts actors of another program than this one.
    pub(crate) fn program(mut self, program: std::path::PathBuf) -> Self {
        self.settings.program = Some(program);
        self
    }

    /// How long the actors may take to come up, all together. Default: one minute.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.settings.start_timeout = timeout;
        self
    }

    /// Loads the pipeline in this process: its weights are borrowed from the arena, on the wrapper's device.
    ///
    /// # Errors
    /// If the device is not there, or the arena does not fit the pipeline.
    pub fn load(&self) -> Result<Loaded<P>> {
        self.load_on(self.device)
    }

    /// Loads the pipeline in this process, on another device than the wrapper's.
    ///
    /// # Errors
    /// If the device is not there, or the arena does not fit the pipeline.
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

    /// What each process that maps the weights costs, whoever started it: this one, actors, and those that were handed
    /// a serialised handle. From the kernel's figures. Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        report_all(&self.arena).map_err(Into::into)
    }

    /// Opens the handle of a ticket.
    pub(super) fn redeem(ticket: &TicketData) -> Result<Self, TicketError> {
        let arena = broker::fetch(&ticket.ticket)?;
        if arena.id() != ticket.arena {
            let (expected, found) = (ticket.arena.to_string(), arena.id().to_string());
            return Err(TicketError::OtherArena { expected, found });
        }
        // Another process made it: its bytes are checked once, before anything is computed with them.
        let mut wrapper = Self::from_arena(arena.verified()?);
        wrapper.device = DeviceSpec::of(&ticket.device)?;
        wrapper.strict = ticket.strict;
        wrapper.memory = ticket.memory;
        wrapper.settings.threads = ticket.threads;
        wrapper.settings.queue = ticket.queue.max(1);
        wrapper.deadline = ticket.deadline;
        Ok(wrapper)
    }

    /// Takes back what was exported or serialised: tickets that have not been opened by now are void, and this process no
    /// longer keeps the arena for them.
    pub fn withdraw(&self) {
        broker::withdraw(&self.arena);
    }
}

impl<P: Remote> ActorWrapper<P> {
    /// Starts `actors` processes (one at least) that load the pipeline, all at the same time, and waits until they have.
    ///
    /// # Errors
    /// If a process cannot be started or cannot load the pipeline; it is named.
    pub fn spawn(&self, actors: usize) -> Result<Actors<P>> {
        let arena = self.backend.adopt(self.arena.clone())?;
        let program = program::<P>(arena, self.device.to_string(), self.strict, self.memory)?;
        let settings = Settings { workers: actors.max(1), ..self.settings.clone() };
        let EngineHandle(engine) = self.backend.actors(ActorSpec { settings, program: Arc::clone(&program) })?;
        let options = Options { deadline: self.deadline, attempts: 1, wait: true, actor: true };
        let caller = Caller { program, engine, options, pinned: None };
        Ok(Actors::new(caller))
    }
}

impl<P> ActorWrapper<P> {
    /// Offers the arena to other processes of this machine and user, and returns the ticket with which they
    /// [open](Ticket::open) a handle like this one.
    ///
    /// The first ticket of a process starts a thread that listens on a socket. The process keeps the arena for its
    /// tickets until it ends, or until [`withdraw`](Self::withdraw).
    ///
    /// # Errors
    /// If the socket cannot be made, or the arena lies in Ray's object store.
    pub fn export(&self) -> Result<Ticket<P>, TicketError> {
        Ok(Ticket::new(TicketData {
            ticket: broker::offer(&self.arena)?,
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
