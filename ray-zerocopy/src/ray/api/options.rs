//! What a task or an actor asks of the cluster.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What a task or an actor asks of the cluster: processors, GPUs, and other resources.
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
    /// How many processors it takes, in whole or in part. Default: 1. A worker computes with as many threads, one at least.
    #[must_use]
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// How many GPUs it takes, in whole or in part. Ray shows it only those: the first of them is `"cuda:0"`.
    #[must_use]
    pub fn gpus(mut self, gpus: f64) -> Self {
        self.gpus = Some(gpus);
        self
    }

    /// How much memory it takes, in bytes. Ray counts it, and does not enforce it.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// How much it takes of a resource that some nodes have.
    #[must_use]
    pub fn resource(mut self, name: &str, amount: f64) -> Self {
        self.resources.insert(name.to_owned(), amount);
        self
    }

    /// The one [node](super::cluster::Node) that may run it.
    #[must_use]
    pub fn node(mut self, id: &str) -> Self {
        self.node = Some(id.to_owned());
        self
    }

    /// Prefers nodes that have little to do. By default Ray fills one node after the other.
    #[must_use]
    pub fn spread(mut self) -> Self {
        self.spread = true;
        self
    }

    /// For [`ActorWrapper`](crate::ActorWrapper): small calls of its actors go through a compiled graph of Ray's, a channel in shared memory,
    /// and not through Ray's task machinery. They take a fraction of the time. Large ones, of more than 64 KiB, go as always.
    ///
    /// An actor that dies is begun anew by this process, not by Ray, so it ends with this process's interest in it.
    #[must_use]
    pub fn compiled_graph(mut self) -> Self {
        self.compiled_graph = true;
        self
    }

    /// Whether calls of actors go through a compiled graph.
    pub(crate) fn has_compiled_graph(&self) -> bool {
        self.compiled_graph
    }

    /// How many threads a worker computes with.
    pub fn threads(&self) -> usize {
        self.cpus.map_or(1, |cpus| cpus.floor().max(1.0) as usize)
    }

    /// As Ray's own keywords.
    pub(crate) fn keywords<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let keywords = PyDict::new(py);
        keywords.set_item("num_cpus", self.cpus.unwrap_or(1.0))?;
        self.gpus.map(|gpus| keywords.set_item("num_gpus", gpus)).transpose()?;
        self.memory.map(|bytes| keywords.set_item("memory", bytes)).transpose()?;
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
