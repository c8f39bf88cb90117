//! Wrappers of graphs: as those of pipelines, for workers that do not know the pipeline's type.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::executable::Executable;
use super::pipeline::Graph;
use super::program::{ProgramKind, Runnable};
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;
use crate::device::DeviceSpec;
use crate::engine::backend::Backend;
use crate::engine::local::LocalPool;
use crate::error::Result;
use crate::error::device::DeviceError;
use crate::error::graph::{GraphError, ReplayError};
use crate::error::ticket::TicketError;
use crate::remote::actor::ActorWrapper;
use crate::remote::actors::{Actor, Actors};
use crate::remote::pending::Pending;
use crate::remote::task::TaskWrapper;
use crate::remote::ticket::Ticket;
use crate::report::table::Report;
use crate::tensor::value::Values;

/// Runs a graph or a TorchScript module, each call as one task: a [`TaskWrapper`] without the pipeline's type.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
/// # use ray_zerocopy::{Pipeline, jit};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// # fn main() -> ray_zerocopy::Result<()> {
/// ray_zerocopy::init();
/// # let device = Device::flex();
/// # let model = Model::new(&device);
/// let rows = Tensor::<2>::ones([3, 4], &device);
/// let graph = jit::trace(&model)
///     .input("rows", rows.clone())
///     .forward(|model, inputs| Ok(model.head.forward(inputs.float::<2>("rows")?)))?;
///
/// let tasks = jit::JitTaskWrapper::new(&graph)?;
/// let outputs = tasks.run([("rows", rows.clone())]).wait()?;
/// assert_eq!(outputs.float::<2>("output")?.into_data(), model.head.forward(rows).into_data());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct JitTaskWrapper {
    tasks: TaskWrapper<Graph>,
}

impl JitTaskWrapper {
    /// Runs a graph on the workers that this process shares, [`LocalPool::shared`].
    ///
    /// # Errors
    /// If the workers cannot be started.
    pub fn new(graph: &impl Runnable) -> Result<Self> {
        Self::on(&LocalPool::shared()?, graph)
    }

    /// Runs a graph on workers of your choice: [`LocalPool`] ones, or those of a Ray cluster.
    ///
    /// # Errors
    /// If the weights cannot be brought there.
    pub fn on(backend: &impl Backend, graph: &impl Runnable) -> Result<Self> {
        Ok(Self { tasks: TaskWrapper::from_arena_on(backend, graph.arena().clone())? })
    }

    fn with(self, change: impl FnOnce(TaskWrapper<Graph>) -> TaskWrapper<Graph>) -> Self {
        Self { tasks: change(self.tasks) }
    }

    /// Where workers compute: see [`TaskWrapper::device`].
    ///
    /// # Errors
    /// If it is not a device.
    pub fn device(self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Self> {
        Ok(Self { tasks: self.tasks.device(device)? })
    }

    /// Makes it an error if a worker has to copy a weight.
    #[must_use]
    pub fn strict(self) -> Self {
        self.with(TaskWrapper::strict)
    }

    /// How the memory of the weights is treated: see [`TaskWrapper::memory`].
    #[must_use]
    pub fn memory(self, memory: MemoryPolicy) -> Self {
        self.with(|tasks| tasks.memory(memory))
    }

    /// How long a call may take, with its time in the queue.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|tasks| tasks.deadline(deadline))
    }

    /// How often a task may be tried when its workers die. Default: 3.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        self.with(|tasks| tasks.attempts(attempts))
    }

    /// Makes a call fail at once when the queue is full.
    #[must_use]
    pub fn fail_when_full(self) -> Self {
        self.with(TaskWrapper::fail_when_full)
    }

    /// Runs the graph, or a module's `forward`. Wrong inputs are an error of the result, and cost no worker anything.
    pub fn run(&self, inputs: impl Into<Values>) -> Pending<Values> {
        self.tasks.run(inputs)
    }

    /// Calls a method of a TorchScript module, which has others than `forward`.
    pub fn call(&self, method: &str, inputs: impl Into<Values>) -> Pending<Values> {
        self.tasks.call(method, inputs)
    }

    /// The shared weights.
    pub fn arena(&self) -> &Arena {
        self.tasks.arena()
    }

    /// What each process maps and what it costs, from the kernel's figures. Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        self.tasks.report()
    }
}

/// A graph as a cheap handle that can be serialised: an [`ActorWrapper`] without the pipeline's type.
///
/// ```
/// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
/// # use ray_zerocopy::{Pipeline, jit};
/// # #[derive(Pipeline)]
/// # #[pipeline(init = Model::new)]
/// # struct Model { head: Linear }
/// # impl Model { fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } } }
/// # fn main() -> ray_zerocopy::Result<()> {
/// ray_zerocopy::init();
/// # let device = Device::flex();
/// # let model = Model::new(&device);
/// # let rows = Tensor::<2>::ones([3, 4], &device);
/// # let graph = jit::trace(&model)
/// #     .input("rows", rows.clone())
/// #     .forward(|model, inputs| Ok(model.head.forward(inputs.float::<2>("rows")?)))?;
/// let shared = jit::JitActorWrapper::new(&graph);
/// let actors = shared.spawn(2)?;                      // two processes, one copy of the weights
/// let outputs = actors.run([("rows", rows.clone())]).wait()?;
/// assert_eq!(outputs.float::<2>("output")?.into_data(), model.head.forward(rows).into_data());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct JitActorWrapper {
    actors: ActorWrapper<Graph>,
}

impl JitActorWrapper {
    /// Actors of this machine.
    pub fn new(graph: &impl Runnable) -> Self {
        Self { actors: ActorWrapper::from_arena(graph.arena().clone()) }
    }

    /// Actors that live where you choose: on this machine, or on a Ray cluster.
    ///
    /// # Errors
    /// If the weights cannot be brought there.
    pub fn on(backend: &impl Backend, graph: &impl Runnable) -> Result<Self> {
        Ok(Self { actors: ActorWrapper::from_arena_on(backend, graph.arena().clone())? })
    }

    fn with(self, change: impl FnOnce(ActorWrapper<Graph>) -> ActorWrapper<Graph>) -> Self {
        Self { actors: change(self.actors) }
    }

    /// Where the graph runs: see [`ActorWrapper::device`].
    ///
    /// # Errors
    /// If it is not a device.
    pub fn device(self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Self> {
        Ok(Self { actors: self.actors.device(device)? })
    }

    /// Makes it an error if a weight has to be copied.
    #[must_use]
    pub fn strict(self) -> Self {
        self.with(ActorWrapper::strict)
    }

    /// How the memory of the weights is treated: see [`ActorWrapper::memory`].
    #[must_use]
    pub fn memory(self, memory: MemoryPolicy) -> Self {
        self.with(|actors| actors.memory(memory))
    }

    /// How many threads each actor computes with. Default: the cores divided among the actors.
    #[must_use]
    pub fn threads_per_worker(self, threads: usize) -> Self {
        self.with(|actors| actors.threads_per_worker(threads))
    }

    /// How many calls may wait before callers have to. Default: 1024.
    #[must_use]
    pub fn queue(self, calls: usize) -> Self {
        self.with(|actors| actors.queue(calls))
    }

    /// How long a call may take, with its time in the queue.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|actors| actors.deadline(deadline))
    }

    /// How long the actors may take to come up, all together. Default: one minute.
    #[must_use]
    pub fn start_timeout(self, timeout: Duration) -> Self {
        self.with(|actors| actors.start_timeout(timeout))
    }

    /// Starts actors of another program than this one: `rzc`, or any other that has this crate in the same version.
    ///
    /// On this machine only: on Ray, actors are always this program.
    #[must_use]
    pub fn program(self, program: impl Into<std::path::PathBuf>) -> Self {
        self.with(|actors| actors.program(program.into()))
    }

    /// Loads the graph in this process, on the wrapper's device.
    ///
    /// # Errors
    /// If the device is not there, or cannot run graphs; or if something had to be copied and the wrapper is
    /// [`strict`](Self::strict).
    pub fn load(&self) -> Result<Executable> {
        let loaded = self.actors.load()?.into_inner().into_replay();
        let nothing = || GraphError::Corrupted { reason: "it was not loaded".to_owned() };
        Ok(loaded.ok_or_else(|| ReplayError::from(nothing()))?)
    }

    /// Starts `actors` processes (one at least) that load the graph, and waits until they have.
    ///
    /// # Errors
    /// If a process cannot be started or cannot load the graph; it is named.
    pub fn spawn(&self, actors: usize) -> Result<JitActors> {
        self.actors.spawn(actors)
    }

    /// The shared weights.
    pub fn arena(&self) -> &Arena {
        self.actors.arena()
    }

    /// What each process that maps the weights costs. Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        self.actors.report()
    }

    /// Offers the arena to other processes of this machine and user: see [`ActorWrapper::export`].
    ///
    /// # Errors
    /// As [`ActorWrapper::export`].
    pub fn export(&self) -> Result<JitTicket, TicketError> {
        self.actors.export().map(JitTicket)
    }

    /// Takes back what was exported or serialised: see [`ActorWrapper::withdraw`].
    pub fn withdraw(&self) {
        self.actors.withdraw();
    }
}

/// An exported [`JitActorWrapper`]: plain data, for a process of the same machine and user. See [`Ticket`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JitTicket(Ticket<Graph>);

impl JitTicket {
    /// Fetches the arena from the process that shared it, and checks every byte: see [`Ticket::open`].
    ///
    /// # Errors
    /// As [`Ticket::open`], or if the arena holds neither a graph nor a module.
    pub fn open(&self) -> Result<JitActorWrapper, TicketError> {
        let actors = self.0.open()?;
        ProgramKind::of(actors.arena())?;
        Ok(JitActorWrapper { actors })
    }
}

/// [Exports](JitActorWrapper::export) the wrapper, and serialises its ticket.
impl Serialize for JitActorWrapper {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.actors.serialize(serializer)
    }
}

/// [Opens](JitTicket::open) a deserialised ticket.
impl<'de> Deserialize<'de> for JitActorWrapper {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        JitTicket::deserialize(deserializer)?.open().map_err(serde::de::Error::custom)
    }
}

/// Processes that have loaded a graph or a TorchScript module, and [run](super::GraphCaller::run) it. A call goes to whichever
/// is free.
pub type JitActors = Actors<Graph>;

/// One actor of several that [runs](super::GraphCaller::run) a graph or a TorchScript module.
pub type JitActor = Actor<Graph>;

impl fmt::Debug for JitTaskWrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JitTaskWrapper").field(&self.tasks).finish()
    }
}

impl fmt::Debug for JitActorWrapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JitActorWrapper").field(&self.actors).finish()
    }
}
