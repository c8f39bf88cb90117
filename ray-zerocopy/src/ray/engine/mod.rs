//! The Ray engine: runs a pipeline's calls as Ray tasks, or on Ray actors. Ray schedules them, and
//! transfers the weights.
//!
//! | file | what |
//! | --- | --- |
//! | `in_flight` | a submitted call, which is completed once |
//! | `bundling` | which calls are submitted together |
//! | `sent_bundle` | calls that were submitted together |
//! | `inline_wait` | a caller that reads its own reply |
//! | `open_calls` | the calls that have no result yet, to find those that are cancelled |
//! | `workers` | the workers that have replied |
//! | `tasks` | each call is a task, on any worker of the cluster |
//! | `actors` | a set of actors that have loaded one pipeline |
//! | `streams` | calls that return streams |
//! | `compiled_graph` | calls of actors through a compiled graph |
//!
//! A task contains neither the weights nor a reference to them, which Ray would have to track in
//! every call. It contains the id of the pipeline. A worker that has not loaded the pipeline
//! replies `Missing`, and the call is sent again with the reference. From then on that worker
//! caches the pipeline.

pub(crate) mod actors;
pub(crate) mod bundling;
pub(crate) mod compiled_graph;
pub(crate) mod in_flight;
pub(crate) mod inline_wait;
pub(crate) mod open_calls;
pub(crate) mod sent_bundle;
pub(crate) mod streams;
pub(crate) mod tasks;
pub(crate) mod workers;

/// Name of the engines in metrics.
const KIND: &str = "ray";

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::api::cluster::Cluster;
use super::api::object::Held;
use super::api::options::Options;
use super::store::plasma;
use super::wire::protocol::{Load, ProgramId};
use crate::arena::arena::Arena;
use crate::engine::backend::{ActorSpec, Backend, EngineHandle, sealed};
use crate::engine::call::Call;
use crate::engine::program::Program;
use crate::engine::settings::{Cores, Settings};
use crate::error::Result;
use crate::error::call::CallError;
use crate::error::ray::RayError;

/// A Ray cluster with the resource requirements of each worker. See [`Cluster::with`].
#[derive(Debug, Clone)]
pub struct ClusterTarget {
    pub(super) cluster: Cluster,
    pub(super) options: Options,
}

impl Cluster {
    /// Combines this cluster with the resource requirements of each task or actor, as a backend for
    /// a wrapper.
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
        check_settings(&spec.settings)?;
        Ok(EngineHandle(actors::RayActors::start(self.clone(), spec)?))
    }

    fn handle(&self) -> Arc<dyn Backend> {
        Arc::new(self.clone())
    }
}

impl ClusterTarget {
    /// Returns `true` in a fork of the process that has connected.
    fn is_forked(&self) -> bool {
        self.cluster.0.is_forked()
    }

    /// Fails if this process is a fork.
    fn check_not_forked(&self, call: &Call) -> std::result::Result<(), CallError> {
        if self.is_forked() { Err(CallError::forked(call.method)) } else { Ok(()) }
    }
}

/// Properties of a call that determine its admission.
#[derive(Clone, Copy)]
struct Admission {
    method: &'static str,
    deadline: Option<(Instant, Duration)>,
    key: u64,
    is_admitted: bool,
}

impl Admission {
    fn of(call: &Call) -> Self {
        Self { method: call.method, deadline: call.deadline, key: call.program.key, is_admitted: call.is_admitted }
    }
}

/// The error of a rolling restart. Ray delivers calls to an actor that are already on their way when it
/// ends as failures.
fn restart_unsupported() -> CallError {
    CallError::Unsupported {
        operation: "restart".to_owned(),
        reason: "calls may be on their way to an actor of a Ray cluster when it ends; spawn new actors, move the \
                 callers to them, and `drain` the old ones"
            .to_owned(),
    }
}

/// Refuses settings that the nodes of a cluster cannot have.
fn check_settings(settings: &Settings) -> std::result::Result<(), CallError> {
    if settings.niceness.is_none() && settings.cores == Cores::Any {
        return Ok(());
    }
    Err(CallError::Unsupported {
        operation: "niceness, pin_cores or affinity".to_owned(),
        reason: "the nodes of a Ray cluster have cores of their own, which Ray assigns; set `Options::cpus` instead"
            .to_owned(),
    })
}

/// The id of a program in the cluster.
fn program_id(cluster: &Cluster, program: &Program) -> ProgramId {
    ProgramId { driver: cluster.0.driver, key: program.key }
}

/// The parameters for loading a program, and the objects that contain its arena. `what` is for the error.
fn load_of(program: &Program, what: &str) -> std::result::Result<(Load, Vec<Arc<Held>>), RayError> {
    let missing =
        || RayError::Other { what: what.to_owned(), cause: "the arena is not in the object store".to_owned() };
    let arena = plasma::references(&program.arena).ok_or_else(missing)?;
    let Program { loader, device, strict, prewarm, .. } = program;
    let load = Load {
        loader: loader.clone(),
        device: device.clone(),
        strict: *strict,
        prewarm: prewarm.clone(),
        containers: arena.len(),
    };
    Ok((load, arena))
}

/// Ray's references to objects, as arguments of a call.
fn in_python<'py>(py: Python<'py>, objects: &[Arc<Held>]) -> impl Iterator<Item = Bound<'py, PyAny>> {
    objects.iter().map(move |held| held.reference.bind(py).clone())
}
