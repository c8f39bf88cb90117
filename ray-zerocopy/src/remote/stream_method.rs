//! Remote methods that return a stream: the trait that `#[ray_zerocopy::remote]` implements for each
//! method under `#[remote(stream)]`, and the generic code that uses it.

use super::caller::{Caller, Method};
use super::method::{Arguments, MethodSource, MethodWire};
use super::streaming::Streaming;
use super::wire::{Reader, WireError, Writer};

/// The method number `INDEX` of a pipeline, which takes `A` and returns an iterator of `T`.
pub trait RemoteStream<const INDEX: usize, A: Arguments, T>: Sized + 'static {
    /// The method's name, documentation and parameters in the source.
    const SOURCE: MethodSource;

    /// How the arguments and each item are sent.
    fn wire() -> MethodWire<A, T>;

    /// Calls the method, and passes each item to `each` until that returns `false`. The iterator's type
    /// may have no name, so it stays in here.
    fn run(&mut self, arguments: A, each: &mut dyn FnMut(T) -> bool);
}

impl Caller {
    /// Calls a method that returns a stream in a worker.
    pub fn remote_stream<P, const INDEX: usize, A, T>(&self, arguments: A) -> Streaming<T>
    where
        P: RemoteStream<INDEX, A, T>,
        A: Arguments,
    {
        let method = Method::new::<P>(P::SOURCE.name, serve_stream::<P, INDEX, A, T>);
        self.call_for_stream(method, |writer| arguments.put(&P::wire().0, writer), |reader| (P::wire().1.take)(reader))
    }
}

/// Runs a method in a worker.
pub(super) fn serve_stream<P, const INDEX: usize, A, T>(
    pipeline: &mut P,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), WireError>
where
    P: RemoteStream<INDEX, A, T>,
    A: Arguments,
{
    let (arguments, item) = P::wire();
    let arguments = A::take(&arguments, reader)?;
    let mut failure = None;
    pipeline.run(arguments, &mut |value| {
        let mut message = Writer::default();
        let sent = (item.put)(&value, &mut message).and_then(|()| writer.item(message.finish()));
        sent.unwrap_or_else(|error| {
            failure = Some(error);
            false
        })
    });
    failure.map_or(Ok(()), Err)
}
