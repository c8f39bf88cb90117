//! Calls of a wrapper's methods by name, for callers that do not know the types at compile time, such as an HTTP server.
//!
//! The arguments are read as the method's types in this process, so that one that does not fit is an error before
//! anything is sent.

use burn::tensor::Device;

use super::Remote;
use super::actors::Actors;
use super::batch_method::{BatchArguments, BatchMethod};
use super::caller::{Caller, Method};
use super::method::{Arguments, RemoteMethod, serve};
use super::pending::Pending;
use super::rows::RowsResult;
use super::schema::{Parameter, Schema};
use super::stream_method::{RemoteStream, serve_stream};
use super::streaming::Streaming;
use super::task::TaskWrapper;
use super::untyped::{self, Failed, Results};
use super::wire::{Reader, WireError};

/// A call of a method by its name.
pub enum Called {
    /// The result will arrive.
    Result(Pending<Results>),
    /// The method returns a stream, and each item is a result.
    Items(Streaming<Results>),
}

/// Reads the arguments of a method, and calls it.
pub(super) type CallByName = fn(&Caller, &mut Reader) -> Result<Called, WireError>;

pub(super) fn call<P, const INDEX: usize, A, T>(caller: &Caller, reader: &mut Reader) -> Result<Called, WireError>
where
    P: RemoteMethod<INDEX, A, T>,
    A: Arguments,
{
    let (wire, _) = P::wire();
    let arguments = A::take(&wire, reader)?;
    let method = Method::new::<P>(P::SOURCE.name, serve::<P, INDEX, A, T>);
    Ok(Called::Result(caller.call(method, |writer| arguments.put(&wire, writer), results)))
}

pub(super) fn call_batch<P, const INDEX: usize, A, T>(caller: &Caller, reader: &mut Reader) -> Result<Called, WireError>
where
    P: BatchMethod<INDEX, A, T>,
    A: BatchArguments,
    T: RowsResult,
{
    let (wire, _) = P::wire();
    let arguments = A::take(&wire, reader)?;
    Ok(Called::Result(caller.batched::<P, INDEX, A, T, Results>(arguments, results)))
}

pub(super) fn call_stream<P, const INDEX: usize, A, T>(
    caller: &Caller,
    reader: &mut Reader,
) -> Result<Called, WireError>
where
    P: RemoteStream<INDEX, A, T>,
    A: Arguments,
{
    let (wire, _) = P::wire();
    let arguments = A::take(&wire, reader)?;
    let method = Method::new::<P>(P::SOURCE.name, serve_stream::<P, INDEX, A, T>);
    Ok(Called::Items(caller.call_for_stream(method, |writer| arguments.put(&wire, writer), results)))
}

/// The whole message, to be read as a schema says.
fn results(reader: &mut Reader) -> Result<Results, WireError> {
    Ok(Results::received(reader.take_message()))
}

/// A method of a wrapper, to be called with arguments that are written as its schemas say.
pub struct NamedMethod {
    /// Its name in the source.
    pub name: &'static str,
    /// Its documentation, as written.
    pub doc: &'static str,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// The format of its result, or of each item of its stream.
    pub result: Schema,
    /// Whether it returns a stream.
    pub is_stream: bool,
    caller: Caller,
    call: CallByName,
}

impl NamedMethod {
    /// Calls the method.
    ///
    /// # Errors
    /// If the arguments are not those of the method. Other errors are those of the call.
    pub fn call(&self, arguments: untyped::Arguments) -> Result<Called, Failed> {
        let end = arguments.position();
        let mut reader = arguments.reader(&Device::flex());
        let called = (self.call)(&self.caller, &mut reader)
            .map_err(|WireError { reason, .. }| Failed::Argument { at: reader.position(), reason })?;
        // A tuple of tensors may be read from a message that has more of them.
        if reader.position() == end {
            return Ok(called);
        }
        Err(Failed::Argument { at: reader.position(), reason: "the method has no such argument".to_owned() })
    }
}

/// A wrapper whose methods can be called by name: [`TaskWrapper`] and [`Actors`].
///
/// A method with a `where` clause of its own is not listed, since not every pipeline of the type has it.
pub trait ByName {
    /// The methods that the wrapper has, in the order of the source.
    fn named_methods(&self) -> Vec<NamedMethod>;
}

impl<P: Remote> ByName for TaskWrapper<P> {
    fn named_methods(&self) -> Vec<NamedMethod> {
        named::<P>(self.caller(), false)
    }
}

impl<P: Remote> ByName for Actors<P> {
    fn named_methods(&self) -> Vec<NamedMethod> {
        named::<P>(self.caller(), true)
    }
}

fn named<P: Remote>(caller: &Caller, with_exclusive: bool) -> Vec<NamedMethod> {
    let listed = P::METHODS.iter().filter(|entry| with_exclusive || !entry.is_exclusive());
    let named = listed.map(|entry| {
        let info = entry.info();
        NamedMethod {
            name: info.name,
            doc: info.doc,
            parameters: info.parameters,
            result: info.result,
            is_stream: info.is_stream,
            caller: caller.clone(),
            call: entry.call(),
        }
    });
    named.collect()
}
