//! Trampolines: functions that know the types of a plain function, and are sent with it as a token.

use std::any::Any;

use burn::tensor::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;
use crate::engine::message::{Incoming, Outgoing};
use crate::engine::served::MethodError;
use crate::engine::sys::entry::FnToken;

/// A function to run, and its argument.
pub(crate) struct Job {
    pub(crate) function: FnToken,
    pub(crate) arguments: Incoming,
}

/// Runs a function.
pub(crate) type Shim = fn(Job) -> Result<Outgoing, MethodError>;
/// Constructs the state of an actor.
pub(crate) type ConstructShim = fn(Job) -> Result<Box<dyn Any>, MethodError>;
/// Calls a function on the state of an actor.
pub(crate) type MethodShim = fn(&mut Box<dyn Any>, Job) -> Result<Outgoing, MethodError>;

fn wire(what: &str, reason: impl ToString) -> MethodError {
    MethodError::Wire { what: what.to_owned(), reason: reason.to_string() }
}

/// Encodes a value as the only segment of a message.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Outgoing, String> {
    Ok(Outgoing { segments: vec![Bytes::from_bytes_vec(codec::encode(value)?)] })
}

/// Decodes the only value of a message.
pub(crate) fn decode<T: DeserializeOwned>(message: &Incoming) -> Result<T, String> {
    codec::decode(message.segments.first().ok_or("the message has no value")?)
}

fn argument<A: DeserializeOwned>(job: &Job) -> Result<A, MethodError> {
    decode(&job.arguments).map_err(|reason| wire("the argument", reason))
}

fn result<R: Serialize>(value: &R) -> Result<Outgoing, MethodError> {
    encode(value).map_err(|reason| wire("the result", reason))
}

/// Runs a function. A [`Shim`].
pub(crate) fn run<A, R>(job: Job) -> Result<Outgoing, MethodError>
where
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let function = job.function.resolve::<fn(A) -> R>().map_err(|error| wire("the function", error))?;
    result(&function(argument(&job)?))
}

/// Constructs the state of an actor. A [`ConstructShim`].
pub(crate) fn construct<A, S>(job: Job) -> Result<Box<dyn Any>, MethodError>
where
    A: DeserializeOwned + 'static,
    S: 'static,
{
    let function = job.function.resolve::<fn(A) -> S>().map_err(|error| wire("the function", error))?;
    Ok(Box::new(function(argument(&job)?)))
}

/// Calls a function on the state of an actor. A [`MethodShim`].
pub(crate) fn method<S, A, R>(state: &mut Box<dyn Any>, job: Job) -> Result<Outgoing, MethodError>
where
    S: 'static,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let function = job.function.resolve::<fn(&mut S, A) -> R>().map_err(|error| wire("the function", error))?;
    let state = state.downcast_mut::<S>();
    let state = state
        .ok_or_else(|| wire("the call", format!("the actor's state is not a `{}`", std::any::type_name::<S>())))?;
    result(&function(state, argument(&job)?))
}
