//! Compiled graphs of Ray for calls of an actor: a shared-memory channel to a loop in the actor.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::timer::TimerThread;
use crate::error::ray::RayError;
use crate::os::sync::Mutex;
use crate::ray::api::cluster::Cluster;
use crate::ray::wire::frame::EncodedMessage;

/// Maximum number of calls in flight in one graph.
const MAX_IN_FLIGHT: usize = 8;

/// The compiled graph of one actor.
pub(super) struct CompiledGraphChannel {
    cluster: Cluster,
    graph: Py<PyAny>,
    /// Reads the results that no caller reads.
    reader: TimerThread,
    /// Held while a result is read: a graph supports only one reader.
    reading: Mutex<()>,
}

impl CompiledGraphChannel {
    /// Compiles a graph that consists of the actor's method.
    pub(super) fn open(cluster: &Cluster, handle: &Py<PyAny>) -> Result<Arc<Self>, RayError> {
        let thread_error =
            |error: std::io::Error| RayError::Other { what: "a thread".to_owned(), cause: error.to_string() };
        let graph = cluster.ask("compile", |py| {
            // When the graph of a dead actor is dropped, Ray logs the death again, with a
            // traceback.
            let logging = py.import("logging")?;
            let logger = logging.call_method1("getLogger", ("ray.dag.compiled_dag_node",))?;
            logger.call_method1("setLevel", (logging.getattr("CRITICAL")?,))?;
            let input = py.import("ray.dag")?.getattr("InputNode")?.call0()?;
            let entered = input.call_method0("__enter__")?;
            let node = handle.bind(py).getattr("direct")?.call_method1("bind", (entered,))?;
            input.call_method1("__exit__", (py.None(), py.None(), py.None()))?;
            let keywords = PyDict::new(py);
            keywords.set_item("_max_inflight_executions", MAX_IN_FLIGHT)?;
            Ok(node.call_method("experimental_compile", (), Some(&keywords))?.unbind())
        })?;
        let reader = TimerThread::start().map_err(thread_error)?;
        Ok(Arc::new(Self { cluster: cluster.clone(), graph, reader, reading: Mutex::new(()) }))
    }

    /// Sends a call. Returns the reference of its result.
    pub(super) fn send(&self, encoded: EncodedMessage, what: &str) -> Result<Py<PyAny>, RayError> {
        self.cluster.ask(what, |py| {
            let message = encoded.arguments(py, None)?;
            Ok(self.graph.bind(py).call_method1("execute", (message,))?.unbind())
        })
    }

    /// Reads a result exclusively.
    pub(super) fn read<R>(&self, read: impl FnOnce() -> R) -> R {
        let _guard = self.reading.lock();
        read()
    }

    /// Reads a result on the graph's reader thread.
    pub(super) fn read_later(&self, read: impl FnOnce() + Send + 'static) {
        self.reader.spawn(read);
    }

    /// Ends the loop in the actor.
    pub(super) fn close(&self) {
        // Fails if the actor is dead, which has ended the loop as well.
        let _ = self.cluster.ask("teardown", |py| self.graph.bind(py).call_method0("teardown").map(drop));
    }
}
