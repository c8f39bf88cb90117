//! Wrappers of graphs and TorchScript modules, for workers that do not have the pipeline's type.

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
use crate::engine::call::batch::batching::Batching;
use crate::engine::local::LocalPool;
use crate::error::Result;
use crate::error::device::DeviceError;
use crate::error::graph::{GraphError, ReplayError};
use crate::error::ticket::TicketError;
use crate::holder::Following;
use crate::remote::actor::ActorWrapper;
use crate::remote::actors::{Actor, Actors};
use crate::remote::pending::Pending;
use crate::remote::swap::{Canary, Checked, Swapped};
use crate::remote::task::TaskWrapper;
use crate::remote::ticket::Ticket;
use crate::report::table::Report;
use crate::tensor::value::Values;

/// Runs a graph or a TorchScript module, each call as one task. A [`TaskWrapper`] without the
/// pipeline's type.
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

    /// Runs a graph on the workers of a backend: a [`LocalPool`], or a Ray cluster.
    ///
    /// # Errors
    /// If the weights cannot be transferred to the backend.
    pub fn on(backend: &impl Backend, graph: &impl Runnable) -> Result<Self> {
        Ok(Self { tasks: TaskWrapper::from_arena_on(backend, graph.arena().clone())? })
    }

    fn with(self, change: impl FnOnce(TaskWrapper<Graph>) -> TaskWrapper<Graph>) -> Self {
        Self { tasks: change(self.tasks) }
    }

    /// Sets the device that workers compute on. See [`TaskWrapper::device`].
    ///
    /// # Errors
    /// If it is not a device.
    pub fn device(self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Self> {
        Ok(Self { tasks: self.tasks.device(device)? })
    }

    /// Fails if a worker has to copy a weight.
    #[must_use]
    pub fn strict(self) -> Self {
        self.with(TaskWrapper::strict)
    }

    /// Sets the memory policy of the weights. See [`TaskWrapper::memory`].
    #[must_use]
    pub fn memory(self, memory: MemoryPolicy) -> Self {
        self.with(|tasks| tasks.memory(memory))
    }

    /// Sets the maximum duration of a call, including its time in the queue.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|tasks| tasks.deadline(deadline))
    }

    /// Sets the time for which a worker may go on with a cancelled call, before it is killed. See
    /// [`TaskWrapper::cancel_grace`].
    #[must_use]
    pub fn cancel_grace(self, grace: Duration) -> Self {
        self.with(|tasks| tasks.cancel_grace(grace))
    }

    /// Puts calls together. See [`TaskWrapper::batch`].
    ///
    /// Rows are the slices along the first dimension. In a graph, that dimension is a symbol of all
    /// inputs with rows and of all outputs; calls of a graph without such a symbol are errors. In a
    /// TorchScript module, each tensor with dimensions has rows.
    #[must_use]
    pub fn batch(self, batching: Batching) -> Self {
        self.with(|tasks| tasks.batch(batching))
    }

    /// Sets the maximum number of attempts when workers die. Default: 3.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        self.with(|tasks| tasks.attempts(attempts))
    }

    /// Fails calls immediately when the queue is full, instead of waiting.
    #[must_use]
    pub fn fail_when_full(self) -> Self {
        self.with(TaskWrapper::fail_when_full)
    }

    /// Runs the graph, or a module's `forward`. Inputs that do not match are not sent to a worker.
    /// The result is an error.
    pub fn run(&self, inputs: impl Into<Values>) -> Pending<Values> {
        self.tasks.run(inputs)
    }

    /// Calls a method of a TorchScript module, which may have others than `forward`.
    pub fn call(&self, method: &str, inputs: impl Into<Values>) -> Pending<Values> {
        self.tasks.call(method, inputs)
    }

    /// The shared weights.
    pub fn arena(&self) -> Arena {
        self.tasks.arena()
    }

    /// Moves all clones of this wrapper to another graph with the same inputs, outputs and shapes of weights,
    /// while it serves calls. See [`TaskWrapper::swap`].
    ///
    /// # Errors
    /// As [`TaskWrapper::swap`].
    pub fn swap(&self, graph: &impl Runnable) -> Result<Swapped> {
        self.tasks.swap(graph.arena().clone())
    }

    /// Does the same as [`swap`](Self::swap) if `check` succeeds, which gets a wrapper for the new graph alone. See
    /// [`TaskWrapper::swap_if`].
    ///
    /// # Errors
    /// As [`swap`](Self::swap), or the error of `check`.
    pub fn swap_if(&self, graph: &impl Runnable, check: impl FnOnce(&Self) -> Checked) -> Result<Swapped> {
        self.tasks.swap_if(graph.arena().clone(), |tasks| check(&Self { tasks: tasks.clone() }))
    }

    /// Gives another graph a share of the calls. See [`TaskWrapper::canary`].
    ///
    /// # Errors
    /// As [`TaskWrapper::canary`].
    pub fn canary(&self, graph: &impl Runnable, share: f64) -> Result<JitCanary> {
        self.tasks.canary(graph.arena().clone(), share)
    }

    /// Swaps the graph when another program of this user sends a new one to a name. See [`TaskWrapper::follow`].
    ///
    /// # Errors
    /// As [`TaskWrapper::follow`].
    pub fn follow(&self, name: &str) -> Result<Following> {
        self.tasks.follow(name)
    }

    /// Reports the memory that each process maps and what it costs, as measured by the kernel.
    /// Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        self.tasks.report()
    }
}

/// A graph that gets a share of the calls of a [`JitTaskWrapper`]. See [`Canary`].
pub type JitCanary = Canary<Graph>;

/// A cheap, serialisable handle of a graph. An [`ActorWrapper`] without the pipeline's type.
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
    /// Creates a wrapper whose actors run on this machine.
    pub fn new(graph: &impl Runnable) -> Self {
        Self { actors: ActorWrapper::from_arena(graph.arena().clone()) }
    }

    /// Creates a wrapper whose actors run on a backend: this machine, or a Ray cluster.
    ///
    /// # Errors
    /// If the weights cannot be transferred to the backend.
    pub fn on(backend: &impl Backend, graph: &impl Runnable) -> Result<Self> {
        Ok(Self { actors: ActorWrapper::from_arena_on(backend, graph.arena().clone())? })
    }

    fn with(self, change: impl FnOnce(ActorWrapper<Graph>) -> ActorWrapper<Graph>) -> Self {
        Self { actors: change(self.actors) }
    }

    /// Sets the device that the graph runs on. See [`ActorWrapper::device`].
    ///
    /// # Errors
    /// If it is not a device.
    pub fn device(self, device: impl TryInto<DeviceSpec, Error: Into<DeviceError>>) -> Result<Self> {
        Ok(Self { actors: self.actors.device(device)? })
    }

    /// Fails if a weight has to be copied.
    #[must_use]
    pub fn strict(self) -> Self {
        self.with(ActorWrapper::strict)
    }

    /// Sets the memory policy of the weights. See [`ActorWrapper::memory`].
    #[must_use]
    pub fn memory(self, memory: MemoryPolicy) -> Self {
        self.with(|actors| actors.memory(memory))
    }

    /// Sets the number of threads that each actor computes with. Default: the cores divided among
    /// the actors.
    #[must_use]
    pub fn threads_per_worker(self, threads: usize) -> Self {
        self.with(|actors| actors.threads_per_worker(threads))
    }

    /// Sets the maximum number of queued calls before callers have to wait. Default: 1024.
    #[must_use]
    pub fn queue(self, calls: usize) -> Self {
        self.with(|actors| actors.queue(calls))
    }

    /// Sets the maximum duration of a call, including its time in the queue.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.with(|actors| actors.deadline(deadline))
    }

    /// Sets the time in which all actors must have started. Default: one minute.
    #[must_use]
    pub fn start_timeout(self, timeout: Duration) -> Self {
        self.with(|actors| actors.start_timeout(timeout))
    }

    /// Sets the executable of the actors: `rzc`, or any other program with the same version of this
    /// crate. Default: this program.
    ///
    /// On this machine only: on Ray, actors always run this program.
    #[must_use]
    pub fn program(self, program: impl Into<std::path::PathBuf>) -> Self {
        self.with(|actors| actors.program(program.into()))
    }

    /// Loads the graph in this process, on the wrapper's device.
    ///
    /// # Errors
    /// If the device does not exist or cannot run graphs, or if a weight had to be copied and the
    /// wrapper is [`strict`](Self::strict).
    pub fn load(&self) -> Result<Executable> {
        let loaded = self.actors.load()?.into_inner().into_replay();
        let nothing = || GraphError::Corrupted { reason: "it has not been loaded".to_owned() };
        Ok(loaded.ok_or_else(|| ReplayError::from(nothing()))?)
    }

    /// Starts `actors` processes, at least one, and waits until all of them have loaded the graph.
    ///
    /// # Errors
    /// If a process cannot be started or cannot load the graph. The error names it.
    pub fn spawn(&self, actors: usize) -> Result<JitActors> {
        self.actors.spawn(actors)
    }

    /// The shared weights.
    pub fn arena(&self) -> &Arena {
        self.actors.arena()
    }

    /// Reports the memory of each process that maps the weights. Prints as a table.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn report(&self) -> Result<Report> {
        self.actors.report()
    }

    /// Offers the arena to other processes of the same user on this machine. See
    /// [`ActorWrapper::export`].
    ///
    /// # Errors
    /// As [`ActorWrapper::export`].
    pub fn export(&self) -> Result<JitTicket, TicketError> {
        self.actors.export().map(JitTicket)
    }

    /// Stops offering the arena to holders of exported or serialised tickets. See
    /// [`ActorWrapper::withdraw`].
    pub fn withdraw(&self) {
        self.actors.withdraw();
    }
}

/// An exported [`JitActorWrapper`]: plain data, for another process of the same user on the same
/// machine. See [`Ticket`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JitTicket(Ticket<Graph>);

impl JitTicket {
    /// Fetches the arena from the process that shared it, and verifies every byte. See
    /// [`Ticket::open`].
    ///
    /// # Errors
    /// As [`Ticket::open`], or if the arena contains neither a graph nor a module.
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

/// Actors that have loaded a graph or a TorchScript module, and [run](super::GraphCaller::run) it.
/// Each call runs on a free one.
pub type JitActors = Actors<Graph>;

/// One of several actors that [run](super::GraphCaller::run) a graph or a TorchScript module.
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
