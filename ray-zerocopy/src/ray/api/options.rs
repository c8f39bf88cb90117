//! Resource requirements of a task or an actor.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Resource requirements of a task or an actor: CPUs, GPUs, and others.
///
/// ```
/// use ray_zerocopy::ray::Options;
///
/// let options = Options::default().cpus(0.5).gpus(1.0).resource("big-disk", 1.0);
/// assert_eq!(options.threads(), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    cpus: Option<f64>,
    gpus: Option<f64>,
    memory: Option<u64>,
    resources: BTreeMap<String, f64>,
    node: Option<String>,
    spread: bool,
    compiled_graph: bool,
}

impl Options {
    /// Sets the number of CPUs, which may be fractional. Default: 1. A worker computes with as many
    /// threads, at least one.
    #[must_use]
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// Sets the number of GPUs, which may be fractional. Ray makes only these visible: the first of
    /// them is `"cuda:0"`.
    #[must_use]
    pub fn gpus(mut self, gpus: f64) -> Self {
        self.gpus = Some(gpus);
        self
    }

    /// Sets the required memory in bytes. Ray uses it for scheduling, and does not enforce it.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Sets the required amount of a custom resource.
    #[must_use]
    pub fn resource(mut self, name: &str, amount: f64) -> Self {
        self.resources.insert(name.to_owned(), amount);
        self
    }

    /// Restricts execution to one [node](super::cluster::Node).
    #[must_use]
    pub fn node(mut self, id: &str) -> Self {
        self.node = Some(id.to_owned());
        self
    }

    /// Prefers nodes with a low load. By default Ray fills one node after the other.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.spread = true;
        self
    }

    /// For [`ActorWrapper`](crate::ActorWrapper): sends small calls through a compiled graph of
    /// Ray, a channel in shared memory, instead of Ray's task machinery. They take a fraction of
    /// the time. Calls of more than 64 KiB are sent in the usual way.
    ///
    /// An actor that dies is restarted by this process and not by Ray, so it ends when this process
    /// drops it.
    #[must_use]
    pub fn compiled_graph(mut self) -> Self {
        self.compiled_graph = true;
        self
    }

    /// Returns `true` if calls of actors use a compiled graph.
    pub(crate) fn has_compiled_graph(&self) -> bool {
        self.compiled_graph
    }

    /// Number of threads that a worker computes with.
    pub fn threads(&self) -> usize {
        self.cpus.map_or(1, |cpus| cpus.floor().max(1.0) as usize)
    }

    /// Number of CPUs that a task takes of the cluster.
    pub(crate) fn cpus_per_task(&self) -> f64 {
        self.cpus.unwrap_or(1.0)
    }

    /// Converts the options to Ray's keyword arguments.
    pub(crate) fn keywords<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let keywords = PyDict::new(py);
        keywords.set_item("num_cpus", self.cpus_per_task())?;
        if let Some(gpus) = self.gpus {
            keywords.set_item("num_gpus", gpus)?;
        }
        if let Some(bytes) = self.memory {
            keywords.set_item("memory", bytes)?;
        }
        if !self.resources.is_empty() {
            keywords.set_item("resources", &self.resources)?;
        }
        if let Some(node) = &self.node {
            let strategies = py.import("ray.util.scheduling_strategies")?;
            let strategy = strategies.getattr("NodeAffinitySchedulingStrategy")?.call1((node, false))?;
            keywords.set_item("scheduling_strategy", strategy)?;
        } else if self.spread {
            keywords.set_item("scheduling_strategy", "SPREAD")?;
        }
        Ok(keywords)
    }
}
