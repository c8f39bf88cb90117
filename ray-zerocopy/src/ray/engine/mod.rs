//! The Ray engine: a pipeline's calls as Ray tasks, or on Ray actors. Ray is the scheduler, and moves the weights.
//!
//! | file | what |
//! | --- | --- |
//! | `flight` | one call on its way, which is answered once |
//! | `keeper` | threads for what must not happen where Ray calls back: deadlines, sending again, waking callers |
//! | `lone` | a caller that receives its own answer |
//! | `known` | the workers that have answered |
//! | `tasks` | each call a task, wherever Ray finds room |
//! | `actors` | a set of actors that have loaded one pipeline |
//! | `direct` | calls of actors through a compiled graph |
//!
//! A task does not carry the weights, nor a reference to them, which Ray would look after in every call. It names the
//! pipeline. A worker that has not loaded it says so, and the call is sent again with the reference. From then on that worker keeps it.

pub(crate) mod actors;
pub(crate) mod compiled_graph;
pub(crate) mod in_flight;
pub(crate) mod inline_wait;
pub(crate) mod tasks;
pub(crate) mod timer;
pub(crate) mod workers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::api::cluster::Cluster;
use super::api::options::Options;
use super::wire::protocol::{Load, ProgramId};
use crate::arena::arena::Arena;
use crate::engine::backend::{ActorSpec, Backend, EngineHandle, sealed};
use crate::engine::call::Call;
use crate::engine::program::Program;
use crate::error::Result;
use crate::error::call::CallError;

/// A Ray cluster, and what each worker asks of it. See [`Cluster::with`].
#[derive(Debug, Clone)]
pub struct ClusterTarget {
    pub(super) cluster: Cluster,
    pub(super) options: Options,
}

impl Cluster {
    /// This cluster as the backend of a wrapper, with what each task or actor asks of it.
    ///
    /// ```no_run
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::Device};
    /// use ray_zerocopy::ray::{Cluster, Options};
    /// use ray_zerocopy::{Pipeline, TaskWrapper};
    ///
    /// #[derive(Pipeline)]
    /// #[pipeline(init = Model::new)]
    /// struct Model { head: Linear }
    ///
    /// #[ray_zerocopy::remote]
    /// impl Model {
    ///     pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
    ///     pub fn width(&self) -> usize { self.head.weight.dims()[1] }
    /// }
    ///
    /// fn main() -> ray_zerocopy::Result<()> {
    ///     ray_zerocopy::init();
    ///     let cluster = Cluster::connect("auto")?;
    ///     let model = Model::new(&Device::flex());
    ///     let tasks = TaskWrapper::on(&cluster.with(Options::default().gpus(0.5)), &model)?.device("cuda:0")?;
    ///     assert_eq!(tasks.width().wait()?, 2);
    ///     Ok(())
    /// }
    /// ```
    pub fn with(&self, options: Options) -> ClusterTarget {
        ClusterTarget { cluster: self.clone(), options }
    }
}

impl sealed::Sealed for Cluster {}
impl sealed::Sealed for ClusterTarget {}

impl Backend for Cluster {
    fn adopt(&self, arena: Arena) -> Result<Arena> {
        self.put_arena(&arena)
    }

    fn tasks(&self) -> Result<EngineHandle> {
        self.with(Options::default()).tasks()
    }

    fn actors(&self, spec: ActorSpec) -> Result<EngineHandle> {
        self.with(Options::default()).actors(spec)
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }
}

impl Backend for ClusterTarget {
    fn adopt(&self, arena: Arena) -> Result<Arena> {
        self.cluster.put_arena(&arena)
    }

    fn tasks(&self) -> Result<EngineHandle> {
        Ok(EngineHandle(tasks::RayTasks::start(self.clone())?))
    }

    fn actors(&self, spec: ActorSpec) -> Result<EngineHandle> {
        Ok(EngineHandle(actors::RayActors::start(self.clone(), spec)?))
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }
}

impl ClusterTarget {
    /// Whether this is a fork of the process that has joined the cluster.
    fn is_forked(&self) -> bool {
        self.cluster.0.is_forked()
    }

    /// Whether a call may be made in this process.
    fn here(&self, call: &Call) -> std::result::Result<(), CallError> {
        if self.is_forked() { Err(CallError::forked(call.method)) } else { Ok(()) }
    }
}

/// What a call needs to say to be let in.
#[derive(Clone, Copy)]
struct Entry {
    method: &'static str,
    deadline: Option<(Instant, Duration)>,
    key: u64,
}

impl Entry {
    fn of(call: &Call) -> Self {
        Self { method: call.method, deadline: call.deadline, key: call.program.key }
    }
}

/// How a worker names and loads a program.
fn named(cluster: &Cluster, program: &Program) -> (ProgramId, Load) {
    let Program { key, loader, device, strict, .. } = program;
    let load = Load { loader: loader.clone(), device: device.clone(), strict: *strict };
    (ProgramId { driver: cluster.0.driver, key: *key }, load)
}

/// No user code runs under the engine's locks, and no state is left half-written: a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
