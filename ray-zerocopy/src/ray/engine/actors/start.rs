//! Starts actors, and makes them load the pipeline.

use crate::ray::api::actor::start as start_ray_actor;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{RayActors, Shared, Slot};
use crate::engine::backend::ActorSpec;
use crate::engine::figures::workers;
use crate::engine::timer::TimerThread;
use crate::error::call::{CallError, StartError, Worker};
use crate::error::ray::RayError;
use crate::os::sync::{Condvar, Mutex};
use crate::ray::api::object;
use crate::ray::engine::KIND;
use crate::ray::engine::compiled_graph::CompiledGraphChannel;
use crate::ray::engine::inline_wait::LastUnread;
use crate::ray::engine::open_calls::OpenCalls;
use crate::ray::engine::workers::WorkerRegistry;
use crate::ray::engine::{ClusterTarget, in_python, load_of, program_id};
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Answer, Order, Reply};

impl RayActors {
    /// Starts the actors, and waits until they have loaded the pipeline.
    pub(crate) fn start(target: ClusterTarget, spec: ActorSpec) -> crate::error::Result<Arc<Self>> {
        let ActorSpec { settings, program, has_streams } = spec;
        let thread_error =
            |error: std::io::Error| RayError::Other { what: "a thread".to_owned(), cause: error.to_string() };
        let shared = Arc::new(Shared {
            target,
            program: Mutex::new(program),
            settings,
            has_streams,
            timer: TimerThread::start().map_err(thread_error)?,
            delivery_thread: Arc::new(TimerThread::start().map_err(thread_error)?),
            registry: WorkerRegistry::default(),
            last_unread: LastUnread::default(),
            open_calls: OpenCalls::default(),
            state: Mutex::default(),
            change: Condvar::default(),
        });
        let this = Arc::new(Self(shared));
        for _ in 0..this.0.settings.workers.max {
            let slot = this.0.start_actor()?;
            this.0.state.lock().slots.push(slot);
        }
        let until = Instant::now() + this.0.settings.start_timeout;
        for index in 0..this.0.settings.workers.max {
            this.0.load_program(index, Some(until))?;
        }
        Ok(this)
    }
}

impl Shared {
    fn start_error(&self, reason: String) -> CallError {
        StartError::Pipeline { pipeline: self.program().arena.pipeline().to_owned(), reason }.into()
    }

    /// Starts an actor process that has not loaded a pipeline.
    pub(super) fn start_actor(&self) -> Result<Slot, RayError> {
        let cluster = &self.target.cluster;
        let program = self.program();
        cluster.ask(program.arena.pipeline(), |py| {
            let keywords: Bound<'_, PyDict> = self.target.options.keywords(py)?;
            // An actor with a compiled graph is restarted by its owner, which has to compile a new
            // graph anyway.
            keywords.set_item("max_restarts", if self.target.options.has_compiled_graph() { 0 } else { -1 })?;
            let handle = start_ray_actor(&cluster.0, py, &keywords, None, None)?;
            let call = handle.bind(py).getattr("call")?.getattr("remote")?.unbind();
            Ok(Slot {
                handle,
                call,
                busy: 0,
                streams: 0,
                exclusive: 0,
                waiting: VecDeque::new(),
                is_submitting: false,
                direct: None,
                worker: None,
                lost: None,
                loaded: HashSet::new(),
                killed: None,
            })
        })
    }

    /// Makes an actor load the pipeline, and waits until it has. The actor gets calls from then on.
    pub(super) fn load_program(&self, index: usize, until: Option<Instant>) -> Result<(), CallError> {
        let cluster = &self.target.cluster;
        let program = self.program();
        let (key, what) = (program.key, program.arena.pipeline());
        let ray_error = |error| CallError::Ray { method: what.to_owned(), error };
        let (load, arena) = load_of(&program, what).map_err(ray_error)?;
        let order = Order::Load { program: program_id(cluster, &program), load };
        let message = EncodedMessage::new(&self.request(order), Default::default()).map_err(ray_error)?;
        let result = cluster.ask(what, |py| {
            let arguments = message.arguments(py, in_python(py, &arena))?;
            let reference = self.call(py, index)?.bind(py).call1(arguments)?;
            let keywords = PyDict::new(py);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64());
            keywords.set_item("timeout", left)?;
            let result = py.import("ray")?.call_method("get", (reference,), Some(&keywords))?;
            Ok(object::result(&result, what))
        });
        let (reply, _) = match result.and_then(|reply| reply) {
            Ok(reply) => reply,
            Err(RayError::TimedOut { .. }) => return Err(self.start_error(self.no_room(index))),
            Err(error) => return Err(ray_error(error)),
        };
        let worker = Worker { index, pid: reply.from.pid };
        match reply {
            Reply { answer: Answer::NotLoaded(error), .. } => Err(CallError::Load { worker, error }),
            Reply { answer: Answer::Done, from, .. } if self.is_being_killed(index, from.pid) => {
                let cause = format!("process {} was killed, but has not ended yet", from.pid);
                Err(ray_error(RayError::ActorDied { what: what.to_owned(), is_restarting: true, cause }))
            }
            Reply { answer: Answer::Done, attached, from, .. } => {
                self.registry.worker(&from);
                if let Some(attached) = attached {
                    self.registry.attached(key, worker, attached);
                }
                let direct = self.open_direct(index).map_err(ray_error)?;
                if let Some(slot) = self.state.lock().slots.get_mut(index) {
                    workers::started(KIND, slot.lost.is_some());
                    slot.worker = Some(worker);
                    slot.loaded = HashSet::from([key]);
                    slot.direct = direct;
                    slot.killed = None;
                }
                Ok(())
            }
            Reply { answer: Answer::Failed(failure), from, .. } => {
                let (what, worker, message) = (what.to_owned(), from.to_string(), format!("{failure:?}"));
                Err(ray_error(RayError::Panicked { what, worker, message }))
            }
            Reply { from, .. } => Err(ray_error(RayError::OtherBinary { worker: from.to_string() })),
        }
    }

    /// Returns `true` if the process of an actor was killed because of a deadline.
    fn is_being_killed(&self, index: usize, pid: u32) -> bool {
        let killed = self.state.lock().slots.get(index).and_then(|slot| slot.killed);
        killed.is_some_and(|(killed, until)| killed == pid && Instant::now() < until)
    }

    /// Compiles the graph of an actor, if the option is enabled.
    fn open_direct(&self, index: usize) -> Result<Option<Arc<CompiledGraphChannel>>, RayError> {
        if !self.target.options.has_compiled_graph() {
            return Ok(None);
        }
        let handle = Python::attach(|py| Some(self.state.lock().slots.get(index)?.handle.clone_ref(py)));
        handle.map(|handle| CompiledGraphChannel::open(&self.target.cluster, &handle)).transpose()
    }

    /// Error text for an actor that was not ready in time, with the free resources of the cluster.
    fn no_room(&self, index: usize) -> String {
        let resources = |found: Result<std::collections::BTreeMap<String, f64>, RayError>, name: &str| {
            found.ok().and_then(|found| found.get(name).copied()).unwrap_or(0.0)
        };
        let cluster = &self.target.cluster;
        format!(
            "actor {index} was not ready within {:?}: the cluster has {} CPUs, {} of them free, and {} GPUs; each actor \
             needs the resources of its `Options`, or 1 CPU",
            self.settings.start_timeout,
            resources(cluster.resources(), "CPU"),
            resources(cluster.available(), "CPU"),
            resources(cluster.resources(), "GPU"),
        )
    }
}
