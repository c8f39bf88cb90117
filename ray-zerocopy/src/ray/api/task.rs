//! Plain functions as Ray tasks.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cluster::{Cluster, Inner};
use super::object::ObjectRef;
use super::options::Options;
use super::trampoline;
use super::trampoline::Shim;
use crate::engine::message::Outgoing;
use crate::engine::sys::entry::FnToken;
use crate::engine::trace::setup;
use crate::error::ray::RayError;
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Order, Request};

/// An argument: a value, or an object that Ray sends to the worker once it is available.
#[non_exhaustive]
pub enum Argument<A> {
    /// A value.
    Value(A),
    /// An object.
    Object(ObjectRef<A>),
}

/// Without the value, which need not be `Debug`.
impl<A> fmt::Debug for Argument<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => write!(f, "Value({})", std::any::type_name::<A>()),
            Self::Object(object) => f.debug_tuple("Object").field(object).finish(),
        }
    }
}

impl<A> From<A> for Argument<A> {
    fn from(value: A) -> Self {
        Self::Value(value)
    }
}

impl<A> From<&ObjectRef<A>> for Argument<A> {
    fn from(object: &ObjectRef<A>) -> Self {
        Self::Object(object.clone())
    }
}

impl<A: Serialize> Argument<A> {
    /// Encodes a value, or returns the object.
    pub(super) fn parts(&self) -> Result<(Outgoing, Option<&Py<PyAny>>), RayError> {
        match self {
            Self::Value(value) => {
                let wire = |reason| RayError::Wire { what: "the argument".to_owned(), reason };
                Ok((trampoline::encode(value).map_err(wire)?, None))
            }
            Self::Object(object) => Ok((Outgoing::default(), Some(object.reference()))),
        }
    }
}

/// A function that can run on any node of the cluster. See [`Cluster::task`].
pub struct Task<A, R> {
    cluster: Arc<Inner>,
    function: fn(A) -> R,
    options: Options,
    retries: i64,
    name: String,
    types: PhantomData<fn(A) -> R>,
}

impl<A, R> fmt::Debug for Task<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_struct("Task");
        text.field("name", &self.name).field("options", &self.options).field("retries", &self.retries);
        text.finish_non_exhaustive()
    }
}

/// Creates the token of a function.
pub(super) fn token<F: crate::engine::sys::entry::Function>(function: F) -> Result<FnToken, RayError> {
    FnToken::of(function).map_err(|error| RayError::Wire { what: "the function".to_owned(), reason: error.to_string() })
}

impl Cluster {
    /// Declares a plain function as a task. Closures are not possible, since captured values cannot
    /// be sent.
    ///
    /// The argument and the result are any types that serde supports. Use a tuple for several
    /// arguments.
    ///
    /// ```no_run
    /// # use ray_zerocopy::ray::{Cluster, Options, RayError};
    /// fn add((a, b): (i64, i64)) -> i64 { a + b }
    ///
    /// # fn main() -> Result<(), RayError> {
    /// # ray_zerocopy::init();
    /// let cluster = Cluster::connect("auto")?;
    /// let add = cluster.task(add as fn((i64, i64)) -> i64).options(Options::default().cpus(0.5));
    /// let sums: Vec<_> = (0..8).map(|n| add.remote((n, 1))).collect::<Result<_, _>>()?;
    /// assert_eq!(sums[7].get()?, 8);
    /// # Ok(())
    /// # }
    /// ```
    pub fn task<A, R>(&self, function: fn(A) -> R) -> Task<A, R>
    where
        A: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let name = std::any::type_name::<fn(A) -> R>().to_owned();
        let cluster = Arc::clone(&self.0);
        Task { cluster, function, options: Options::default(), retries: 3, name, types: PhantomData }
    }
}

impl<A, R> Task<A, R>
where
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
{
    /// Sets the required resources.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets how often the task is retried when its worker or node dies. Default: 3. A panic is a
    /// result, and is not retried.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = i64::from(retries);
        self
    }

    /// Sets the name that Ray's tools and errors show. Default: the function's type.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Runs the task with an argument, or with the result of another task. In the latter case it
    /// starts once that result is available, and fails if that task fails.
    ///
    /// # Errors
    /// If the function or the argument cannot be sent, or Ray fails.
    pub fn remote(&self, argument: impl Into<Argument<A>>) -> Result<ObjectRef<R>, RayError> {
        let argument = argument.into();
        let (payload, object) = argument.parts()?;
        let run: Shim = trampoline::run::<A, R>;
        let order =
            Order::Function { shim: token(run)?, function: token(self.function)?, by_reference: object.is_some() };
        let request = Request {
            binary: self.cluster.binary,
            threads: self.options.threads(),
            own: true,
            whole: false,
            set_up: setup::get(),
            order,
        };
        let message = EncodedMessage::new(&request, payload)?;
        let reference = self.cluster.ask(&self.name, |py| {
            let keywords = self.options.keywords(py)?;
            keywords.set_item("max_retries", self.retries)?;
            keywords.set_item("name", &self.name)?;
            let call = self.cluster.glue.bind(py).getattr("call")?;
            let function = py.import("ray")?.getattr("remote")?.call((), Some(&keywords))?.call1((call,))?;
            let object = object.map(|object| object.bind(py).clone());
            Ok(function.getattr("remote")?.call1(message.arguments(py, object)?)?.unbind())
        })?;
        Ok(ObjectRef::new(Arc::clone(&self.cluster), reference, &self.name))
    }
}
