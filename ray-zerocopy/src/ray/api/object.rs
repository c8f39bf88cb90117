//! Objects in Ray's object store, and pending results.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cluster::{Cluster, Inner};
use super::trampoline;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::served::MethodError;
use crate::error::ray::RayError;
use crate::ray::wire::frame::{EncodedMessage, read};
use crate::ray::wire::protocol::{Answer, Origin, Reply};

/// Reference to an object of the store, which exists until this is dropped.
pub(crate) struct Held {
    pub(crate) cluster: Arc<Inner>,
    pub(crate) reference: Py<PyAny>,
    what: String,
}

impl Held {
    pub(crate) fn new(cluster: Arc<Inner>, reference: Py<PyAny>, what: &str) -> Self {
        Self { cluster, reference, what: what.to_owned() }
    }
}

/// A reference to a value in Ray's object store, or to one that a task or an actor will put there.
/// Cheap to clone.
///
/// The object exists as long as there is a reference to it.
pub struct ObjectRef<T> {
    held: Arc<Held>,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for ObjectRef<T> {
    fn clone(&self) -> Self {
        Self { held: Arc::clone(&self.held), value: PhantomData }
    }
}

impl<T> fmt::Debug for ObjectRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectRef").field("of", &self.held.what).finish_non_exhaustive()
    }
}

/// Decodes the content of an object: a message, alone or in a tuple with its segments.
fn message(object: &Bound<'_, PyAny>) -> Result<(Reply, Incoming), RayError> {
    match object.cast::<PyTuple>() {
        Ok(parts) if !parts.is_empty() => {
            let mut parts = parts.iter();
            let head = parts.next();
            read(&head.unwrap_or_else(|| object.clone()), parts)
        }
        _ => read(object, []),
    }
}

/// Decodes the result of another task, which a worker gets as an argument.
pub(crate) fn content(object: &Bound<'_, PyAny>) -> Result<Incoming, MethodError> {
    let wire = |reason: String| MethodError::Wire { what: "the argument".to_owned(), reason };
    let (reply, payload) = message(object).map_err(|error| wire(error.to_string()))?;
    match reply.answer {
        Answer::Done | Answer::Item => Ok(payload),
        Answer::Failed(failure) => Err(failure),
        other => Err(wire(format!("the task that creates it failed: {other:?}"))),
    }
}

/// Decodes the object of a result.
pub(crate) fn result(object: &Bound<'_, PyAny>, what: &str) -> Result<(Reply, Incoming), RayError> {
    if object.is_instance_of::<PyBaseException>() {
        return Err(RayError::of(object, what));
    }
    message(object)
}

impl From<PyErr> for RayError {
    fn from(error: PyErr) -> Self {
        Self::here(&error, "python")
    }
}

/// Converts a reply into the payload of a plain value.
pub(crate) fn payload(reply: Reply, payload: Incoming, what: &str) -> Result<Incoming, RayError> {
    let (what, worker) = (what.to_owned(), reply.from.to_string());
    match reply.answer {
        Answer::Done | Answer::Item => Ok(payload),
        Answer::Failed(MethodError::Panicked(message)) => Err(RayError::Panicked { what, worker, message }),
        Answer::Failed(MethodError::Wire { what: part, reason }) => {
            Err(RayError::Wire { what: format!("{part} of `{what}`"), reason })
        }
        Answer::Failed(MethodError::Graph(error)) => Err(RayError::Other { what, cause: error.to_string() }),
        Answer::OtherBinary => Err(RayError::OtherBinary { worker }),
        Answer::Missing => Err(RayError::Other { what, cause: "the worker has not loaded the pipeline".to_owned() }),
        Answer::NotLoaded(error) => Err(RayError::Other { what, cause: error.to_string() }),
        Answer::Bundle(_) | Answer::Skipped => {
            Err(RayError::Wire { what: format!("the result of `{what}`"), reason: "it is that of a bundle".to_owned() })
        }
    }
}

impl<T> ObjectRef<T> {
    pub(super) fn new(cluster: Arc<Inner>, reference: Py<PyAny>, what: &str) -> Self {
        Self { held: Arc::new(Held::new(cluster, reference, what)), value: PhantomData }
    }

    pub(super) fn reference(&self) -> &Py<PyAny> {
        &self.held.reference
    }

    /// Cancels the task that creates the object. With `force`, a running task is interrupted by
    /// killing its worker; otherwise only a queued task is cancelled. Calls of actors are never
    /// interrupted.
    ///
    /// # Errors
    /// If Ray refuses or fails.
    pub fn cancel(&self, force: bool) -> Result<(), RayError> {
        self.held.cluster.ask(&self.held.what, |py| {
            let arguments = PyDict::new(py);
            arguments.set_item("force", force)?;
            py.import("ray")?.call_method("cancel", (&self.held.reference,), Some(&arguments)).map(drop)
        })
    }
}

impl<T: DeserializeOwned> ObjectRef<T> {
    /// Waits for the value.
    ///
    /// # Errors
    /// If it could not be created, is lost, or is not a `T`.
    pub fn get(&self) -> Result<T, RayError> {
        self.fetch(None)
    }

    /// Waits for the value with a timeout.
    ///
    /// # Errors
    /// As [`get`](Self::get), or [`RayError::TimedOut`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, RayError> {
        self.fetch(Some(timeout))
    }

    fn fetch(&self, timeout: Option<Duration>) -> Result<T, RayError> {
        let Held { cluster, reference, what } = &*self.held;
        let (reply, message) = cluster.ask(what, |py| {
            let arguments = PyDict::new(py);
            arguments.set_item("timeout", timeout.map(|timeout| timeout.as_secs_f64()))?;
            let object = py.import("ray")?.call_method("get", (reference,), Some(&arguments))?;
            Ok(result(&object, what))
        })??;
        let value = payload(reply, message, what)?;
        trampoline::decode(&value).map_err(|reason| RayError::Wire { what: format!("the result of `{what}`"), reason })
    }
}

impl Cluster {
    /// Puts a value into the object store of this node. Ray copies it to other nodes on demand,
    /// once to each.
    ///
    /// # Errors
    /// If it cannot be serialised, or the store is full.
    pub fn put<T: Serialize>(&self, value: &T) -> Result<ObjectRef<T>, RayError> {
        let what = std::any::type_name::<T>();
        let wire = |reason| RayError::Wire { what: format!("a `{what}`"), reason };
        let payload: Outgoing = trampoline::encode(value).map_err(wire)?;
        let reply = Reply { from: Origin::here(), attached: None, answer: Answer::Done, took: None };
        let message = EncodedMessage::new(&reply, payload)?;
        let reference =
            self.ask(what, |py| Ok(py.import("ray")?.call_method1("put", (message.object(py)?,))?.unbind()))?;
        Ok(ObjectRef::new(Arc::clone(&self.0), reference, what))
    }

    /// Waits until `wanted` of the objects are available, or until the timeout. Returns the
    /// available objects and the others.
    ///
    /// # Errors
    /// If the cluster does not respond.
    #[expect(clippy::type_complexity, reason = "the same list type twice")]
    pub fn wait<T>(
        &self,
        objects: &[ObjectRef<T>],
        wanted: usize,
        timeout: Option<Duration>,
    ) -> Result<(Vec<ObjectRef<T>>, Vec<ObjectRef<T>>), RayError> {
        if objects.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        self.ask("wait", |py| {
            let references: Vec<_> = objects.iter().map(|object| object.reference().clone_ref(py)).collect();
            let arguments = PyDict::new(py);
            arguments.set_item("num_returns", wanted.clamp(1, objects.len()))?;
            arguments.set_item("timeout", timeout.map(|timeout| timeout.as_secs_f64()))?;
            let (ready, _): (Vec<Bound<'_, PyAny>>, Bound<'_, PyAny>) =
                py.import("ray")?.call_method("wait", (references,), Some(&arguments))?.extract()?;
            let is_ready = |object: &ObjectRef<T>| {
                ready.iter().map(|ready| ready.eq(object.reference())).collect::<PyResult<Vec<_>>>()
            };
            let mut lists = (Vec::new(), Vec::new());
            for object in objects {
                let list = if is_ready(object)?.contains(&true) { &mut lists.0 } else { &mut lists.1 };
                list.push(object.clone());
            }
            Ok(lists)
        })
    }
}
