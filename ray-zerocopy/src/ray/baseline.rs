//! Plain Ray calls as a baseline for benchmarks: their cost without this crate.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::api::cluster::{Cluster, Inner};
use crate::error::ray::RayError;

/// A function and a class that do nothing, written in plain Python.
const NOTHING: &std::ffi::CStr = c"
import ray

@ray.remote(num_cpus=0.1)
def nothing():
    return None

@ray.remote(num_cpus=0.1)
class Nothing:
    def nothing(self):
        return None
";

/// A plain Ray operation to repeat.
pub struct Bare {
    cluster: Arc<Inner>,
    remote: Py<PyAny>,
    /// Keeps the actor alive.
    _actor: Option<Py<PyAny>>,
}

impl Bare {
    fn define<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let names = PyDict::new(py);
        names.set_item("__name__", "__main__")?;
        py.run(NOTHING, Some(&names), None)?;
        names.as_any().get_item(name)
    }

    /// Creates a task that does nothing.
    ///
    /// # Errors
    /// If Ray fails.
    pub fn task(cluster: &Cluster) -> Result<Self, RayError> {
        let remote = cluster.ask("bare", |py| Ok(Self::define(py, "nothing")?.getattr("remote")?.unbind()))?;
        Ok(Self { cluster: Arc::clone(&cluster.0), remote, _actor: None })
    }

    /// The same task, with another share of the cluster's processors.
    ///
    /// # Errors
    /// If Ray fails.
    pub fn task_of(cluster: &Cluster, cpus: f64) -> Result<Self, RayError> {
        let remote = cluster.ask("bare", |py| {
            let options = PyDict::new(py);
            options.set_item("num_cpus", cpus)?;
            let task = Self::define(py, "nothing")?.call_method("options", (), Some(&options))?;
            Ok(task.getattr("remote")?.unbind())
        })?;
        Ok(Self { cluster: Arc::clone(&cluster.0), remote, _actor: None })
    }

    /// Creates an actor with a method that does nothing.
    ///
    /// # Errors
    /// If Ray fails.
    pub fn actor(cluster: &Cluster) -> Result<Self, RayError> {
        let (remote, actor) = cluster.ask("bare", |py| {
            let actor = Self::define(py, "Nothing")?.getattr("remote")?.call0()?;
            Ok((actor.getattr("nothing")?.getattr("remote")?.unbind(), actor.unbind()))
        })?;
        Ok(Self { cluster: Arc::clone(&cluster.0), remote, _actor: Some(actor) })
    }

    /// Runs the task or the method, and waits for the result.
    ///
    /// # Errors
    /// If Ray fails.
    pub fn call(&self) -> Result<(), RayError> {
        self.cluster.ask("bare", |py| {
            let reference = self.remote.bind(py).call0()?;
            py.import("ray")?.call_method1("get", (reference,)).map(drop)
        })
    }

    /// Runs the task or the method several times at once, and waits for all results.
    ///
    /// # Errors
    /// If Ray fails.
    pub fn call_at_once(&self, calls: usize) -> Result<(), RayError> {
        self.cluster.ask("bare", |py| {
            let references = (0..calls).map(|_| self.remote.bind(py).call0()).collect::<PyResult<Vec<_>>>()?;
            py.import("ray")?.call_method1("get", (references,)).map(drop)
        })
    }
}
