//! Plain functions as something that a worker can run: what knows their types travels as a function, too.

use std::any::Any;

use burn::tensor::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::engine::local::{EntryToken, Failure};
use crate::engine::message::{Incoming, Outgoing};

/// A function to run, and its argument.
pub(super) struct Job {
    pub(super) function: EntryToken,
    pub(super) arguments: Incoming,
}

/// Runs a function.
pub(super) type Shim = fn(Job) -> Result<Outgoing, Failure>;
/// Makes the state of an actor.
pub(super) type BeginShim = fn(Job) -> Result<Box<dyn Any>, Failure>;
/// Runs a function on the state of an actor.
pub(super) type MethodShim = fn(&mut Box<dyn Any>, Job) -> Result<Outgoing, Failure>;

fn wire(what: &str, reason: impl ToString) -> Failure {
    Failure::Wire { what: what.to_owned(), reason: reason.to_string() }
}

/// A value as the only segment of a message.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Outgoing, String> {
    Ok(Outgoing { segments: vec![Bytes::from_bytes_vec(codec::encode(value)?)] })
}

/// A value out of a message.
pub(super) fn decode<T: DeserializeOwned>(message: &Incoming) -> Result<T, String> {
    codec::decode(message.segments.first().ok_or("the message has no value")?)
}

fn argument<A: DeserializeOwned>(job: &Job) -> Result<A, Failure> {
    decode(&job.arguments).map_err(|reason| wire("the argument", reason))
}

fn result<R: Serialize>(value: &R) -> Result<Outgoing, Failure> {
    encode(value).map_err(|reason| wire("the result", reason))
}

pub(super) fn run<A, R>(job: Job) -> Result<Outgoing, Failure>
where
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let function = job.function.resolve::<fn(A) -> R>().map_err(|error| wire("the function", error))?;
    result(&function(argument(&job)?))
}

pub(super) fn begin<A, S>(job: Job) -> Result<Box<dyn Any>, Failure>
where
    A: DeserializeOwned + 'static,
    S: 'static,
{
    let function = job.function.resolve::<fn(A) -> S>().map_err(|error| wire("the function", error))?;
    Ok(Box::new(function(argument(&job)?)))
}

pub(super) fn method<S, A, R>(state: &mut Box<dyn Any>, job: Job) -> Result<Outgoing, Failure>
where
    S: 'static,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let function = job.function.resolve::<fn(&mut S, A) -> R>().map_err(|error| wire("the function", error))?;
    let state = state.downcast_mut::<S>();
    let state =
        state.ok_or_else(|| wire("the call", format!("the actor's state is no `{}`", std::any::type_name::<S>())))?;
    result(&function(state, argument(&job)?))
}
