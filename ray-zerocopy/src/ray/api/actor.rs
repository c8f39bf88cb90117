//! Actors: state in a process of the cluster.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cluster::{Cluster, Inner};
use super::object::ObjectRef;
use super::options::Options;
use super::task::{Argument, token};
use super::trampoline;
use super::trampoline::{ConstructShim, MethodShim};
use crate::engine::trace::setup;
use crate::error::ray::RayError;
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Order, Request};

/// Builder of an actor. See [`Cluster::actor`].
pub struct ActorBuilder<S, A> {
    cluster: Arc<Inner>,
    construct: fn(A) -> S,
    options: Options,
    name: Option<String>,
    detached: bool,
    restarts: i64,
}

impl<S, A> fmt::Debug for ActorBuilder<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("ActorBuilder");
        text.field("state", &std::any::type_name::<S>()).field("name", &self.name).field("options", &self.options);
        text.finish_non_exhaustive()
    }
}

/// A process of the cluster with state of type `S`. Cheap to clone. The actor ends when the last
/// handle is dropped, unless it is detached.
///
/// ```no_run
/// # use ray_zerocopy::ray::{Cluster, RayError};
/// struct Counter { count: u64 }
///
/// fn new_counter(count: u64) -> Counter { Counter { count } }
/// fn add(counter: &mut Counter, more: u64) -> u64 { counter.count += more; counter.count }
///
/// # fn main() -> Result<(), RayError> {
/// # ray_zerocopy::init();
/// let cluster = Cluster::connect("auto")?;
/// let counter = cluster.actor(new_counter as fn(u64) -> Counter).name("counter").restarts(2).start(40)?;
/// assert_eq!(counter.call(add as fn(&mut Counter, u64) -> u64, 2)?.get()?, 42);
/// # Ok(())
/// # }
/// ```
pub struct ActorHandle<S> {
    cluster: Arc<Inner>,
    handle: Arc<Py<PyAny>>,
    threads: usize,
    state: PhantomData<fn() -> S>,
}

impl<S> Clone for ActorHandle<S> {
    fn clone(&self) -> Self {
        let (cluster, handle) = (Arc::clone(&self.cluster), Arc::clone(&self.handle));
        Self { cluster, handle, threads: self.threads, state: PhantomData }
    }
}

impl Cluster {
    /// Declares an actor whose state is constructed by a plain function from an argument.
    pub fn actor<S: 'static, A: Serialize + DeserializeOwned + 'static>(
        &self,
        construct: fn(A) -> S,
    ) -> ActorBuilder<S, A> {
        ActorBuilder {
            cluster: Arc::clone(&self.0),
            construct,
            options: Options::default(),
            name: None,
            detached: false,
            restarts: 0,
        }
    }

    /// Returns the actor of a name in this connection's namespace. The type `S` of its state is
    /// checked by the first call.
    ///
    /// # Errors
    /// If there is no such actor.
    pub fn named_actor<S: 'static>(&self, name: &str) -> Result<ActorHandle<S>, RayError> {
        let handle = self.ask(name, |py| Ok(py.import("ray")?.call_method1("get_actor", (name,))?.unbind()));
        let handle = handle.map_err(|error| match error {
            RayError::Other { cause, .. } => RayError::NoActor { name: name.to_owned(), cause },
            other => other,
        })?;
        Ok(ActorHandle { cluster: Arc::clone(&self.0), handle: Arc::new(handle), threads: 1, state: PhantomData })
    }
}

impl<S: 'static, A: Serialize + DeserializeOwned + 'static> ActorBuilder<S, A> {
    /// Sets the required resources.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets a name for [`Cluster::named_actor`].
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Keeps the actor alive after this process has ended, until it is [killed](ActorHandle::kill).
    /// A detached actor needs a name.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Sets how often the actor is restarted when its process or node dies. Each restart constructs
    /// the state again. Default: never.
    #[must_use]
    pub fn restarts(mut self, restarts: u32) -> Self {
        self.restarts = i64::from(restarts);
        self
    }

    /// Starts the actor. Returns before its state is constructed; if that fails, the first call
    /// returns the error.
    ///
    /// # Errors
    /// If the argument cannot be serialised, or the name is taken.
    pub fn start(self, argument: impl Into<Argument<A>>) -> Result<ActorHandle<S>, RayError> {
        let argument = argument.into();
        let (payload, object) = argument.parts()?;
        let construct: ConstructShim = trampoline::construct::<A, S>;
        let order = Order::Construct {
            shim: token(construct)?,
            function: token(self.construct)?,
            by_reference: object.is_some(),
        };
        let threads = self.options.threads();
        let message = EncodedMessage::new(
            &Request { binary: self.cluster.binary, threads, own: true, whole: false, set_up: setup::get(), order },
            payload,
        )?;
        let what = std::any::type_name::<S>();
        let handle = self.cluster.ask(what, |py| {
            let keywords = self.options.keywords(py)?;
            keywords.set_item("max_restarts", self.restarts)?;
            self.name.as_ref().map(|name| keywords.set_item("name", name)).transpose()?;
            if self.detached {
                keywords.set_item("lifetime", "detached")?;
            }
            let object = object.map(|object| object.bind(py).clone());
            start(&self.cluster, py, &keywords, Some(message), object)
        })?;
        Ok(ActorHandle { cluster: self.cluster, handle: Arc::new(handle), threads, state: PhantomData })
    }
}

/// Starts an actor of the class `Actor` in `glue.py`.
pub(crate) fn start(
    cluster: &Inner,
    py: Python<'_>,
    keywords: &Bound<'_, PyDict>,
    message: Option<EncodedMessage>,
    first: Option<Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let class = cluster.glue.bind(py).getattr("Actor")?;
    let class = py.import("ray")?.getattr("remote")?.call((), Some(keywords))?.call1((class,))?;
    let start = class.getattr("remote")?;
    Ok(match message {
        Some(message) => start.call1(message.arguments(py, first)?)?,
        None => start.call0()?,
    }
    .unbind())
}

impl<S: 'static> ActorHandle<S> {
    /// Calls a plain function on the actor's state. Calls through one handle run in order.
    ///
    /// # Errors
    /// If the function or the argument cannot be sent. A dead actor is an error of the result.
    pub fn call<A, R>(
        &self,
        function: fn(&mut S, A) -> R,
        argument: impl Into<Argument<A>>,
    ) -> Result<ObjectRef<R>, RayError>
    where
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let argument = argument.into();
        let (payload, object) = argument.parts()?;
        let method: MethodShim = trampoline::method::<S, A, R>;
        let order = Order::Method { shim: token(method)?, function: token(function)?, by_reference: object.is_some() };
        let message = EncodedMessage::new(
            &Request {
                binary: self.cluster.binary,
                threads: self.threads,
                own: true,
                whole: false,
                set_up: setup::get(),
                order,
            },
            payload,
        )?;
        let what = std::any::type_name::<S>();
        let reference = self.cluster.ask(what, |py| {
            let object = object.map(|object| object.bind(py).clone());
            let call = self.handle.bind(py).getattr("call")?.getattr("remote")?;
            Ok(call.call1(message.arguments(py, object)?)?.unbind())
        })?;
        Ok(ObjectRef::new(Arc::clone(&self.cluster), reference, what))
    }

    /// Kills the actor, detached or not, without a restart.
    ///
    /// # Errors
    /// If Ray fails.
    pub fn kill(&self) -> Result<(), RayError> {
        self.cluster.ask("kill", |py| py.import("ray")?.call_method1("kill", (&*self.handle,)).map(drop))
    }
}

impl<S> std::fmt::Debug for ActorHandle<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ActorHandle<{}>", std::any::type_name::<S>())
    }
}
