//! Calls of an actor through a compiled graph of Ray's: a channel in shared memory to a loop in the actor.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::lock;
use super::timer::TimerThread;
use crate::error::ray::RayError;
use crate::ray::api::cluster::Cluster;
use crate::ray::wire::frame::EncodedMessage;

/// How many calls Ray may have of one actor.
const AT_ONCE: usize = 8;

/// The channel to one actor.
pub(super) struct CompiledGraphChannel {
    cluster: Cluster,
    graph: Py<PyAny>,
    /// Reads the results that no caller reads.
    reader: TimerThread,
    /// Held while a result is read: Ray's graphs are for one reader.
    reading: Mutex<()>,
}

impl CompiledGraphChannel {
    /// Compiles the graph, which is the actor's one method.
    pub(super) fn open(cluster: &Cluster, handle: &Py<PyAny>) -> Result<Arc<Self>, RayError> {
        let other = |error: std::io::Error| RayError::Other { what: "a thread".to_owned(), cause: error.to_string() };
        let graph = cluster.ask("compile", |py| {
            // A graph whose actor has died says so again when it is dropped, with a traceback.
            let logging = py.import("logging")?;
            let logger = logging.call_method1("getLogger", ("ray.dag.compiled_dag_node",))?;
            logger.call_method1("setLevel", (logging.getattr("CRITICAL")?,))?;
            let input = py.import("ray.dag")?.getattr("InputNode")?.call0()?;
            let entered = input.call_method0("__enter__")?;
            let node = handle.bind(py).getattr("direct")?.call_method1("bind", (entered,))?;
            input.call_method1("__exit__", (py.None(), py.None(), py.None()))?;
            let keywords = PyDict::new(py);
            keywords.set_item("_max_inflight_executions", AT_ONCE)?;
            Ok(node.call_method("experimental_compile", (), Some(&keywords))?.unbind())
        })?;
        let reader = TimerThread::start().map_err(other)?;
        Ok(Arc::new(Self { cluster: cluster.clone(), graph, reader, reading: Mutex::new(()) }))
    }

    /// Sends a call; gives what its result is read by.
    pub(super) fn send(&self, packed: EncodedMessage, what: &str) -> Result<Py<PyAny>, RayError> {
        self.cluster.ask(what, |py| {
            let message = packed.arguments(py, None)?;
            Ok(self.graph.bind(py).call_method1("execute", (message,))?.unbind())
        })
    }

    /// Reads, alone.
    pub(super) fn read<R>(&self, read: impl FnOnce() -> R) -> R {
        let _alone = lock(&self.reading);
        read()
    }

    /// Has something read elsewhere.
    pub(super) fn read_later(&self, read: impl FnOnce() + Send + 'static) {
        self.reader.soon(read);
    }

    /// Ends the loop in the actor.
    pub(super) fn close(&self) {
        // An actor that is dead has no loop.
        drop(self.cluster.ask("teardown", |py| self.graph.bind(py).call_method0("teardown").map(drop)));
    }
}
