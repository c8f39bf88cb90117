//! Remote methods as types: the trait that `#[ray_zerocopy::remote]` implements for each method,
//! and the generic code that uses it.
//!
//! The macro writes one impl of [`RemoteMethod`] for each method. Calling the method, running it in
//! a worker and listing it are generic functions here, so that the macro's code stays small.

use super::batch_method::{BatchArguments, BatchMethod};
use super::by_name::{self, CallByName};
use super::caller::{Caller, Method};
use super::hosted::Handler;
use super::pending::Pending;
use super::rows::RowsResult;
use super::schema::{MethodInfo, Parameter, Schema};
use super::stream_method::{RemoteStream, serve_stream};
use super::wire::{Reader, WireError, WireOps, Writer};

/// The method number `INDEX` of a pipeline, which takes `A` and returns `T`.
///
/// The arguments are pairs, `(A, (B, ()))`, so that a method may have any number of them. They are
/// parameters of the trait, not associated types: those may not be less visible than the pipeline.
pub trait RemoteMethod<const INDEX: usize, A: Arguments, T>: Sized + 'static {
    /// The method's name, documentation and parameters in the source.
    const SOURCE: MethodSource;

    /// How the arguments and the result are sent.
    fn wire() -> MethodWire<A, T>;

    /// Calls the method.
    fn run(&mut self, arguments: A) -> T;
}

/// How the arguments and the result of a method are sent.
pub type MethodWire<A, T> = (<A as Arguments>::Wire, WireOps<T>);

/// A method as it is written in the source.
pub struct MethodSource {
    /// Its name.
    pub name: &'static str,
    /// Its documentation.
    pub doc: &'static str,
    /// Whether it takes `&mut self`.
    pub exclusive: bool,
    /// The names of its parameters.
    pub parameters: &'static [&'static str],
}

/// The arguments of a method, as pairs.
pub trait Arguments: Sized {
    /// How each of them is sent.
    type Wire;

    /// Writes them into a message.
    ///
    /// # Errors
    /// If one of them cannot be written.
    fn put(&self, wire: &Self::Wire, writer: &mut Writer) -> Result<(), WireError>;

    /// Reads them from a message.
    ///
    /// # Errors
    /// If the message does not have them.
    fn take(wire: &Self::Wire, reader: &mut Reader) -> Result<Self, WireError>;

    /// Appends the format of each of them.
    fn schemas(wire: &Self::Wire, schemas: &mut Vec<Schema>);
}

impl Arguments for () {
    type Wire = ();

    fn put(&self, (): &(), _: &mut Writer) -> Result<(), WireError> {
        Ok(())
    }

    fn take((): &(), _: &mut Reader) -> Result<(), WireError> {
        Ok(())
    }

    fn schemas((): &(), _: &mut Vec<Schema>) {}
}

impl<A, Rest: Arguments> Arguments for (A, Rest) {
    type Wire = (WireOps<A>, Rest::Wire);

    fn put(&self, (wire, rest): &Self::Wire, writer: &mut Writer) -> Result<(), WireError> {
        (wire.put)(&self.0, writer)?;
        self.1.put(rest, writer)
    }

    fn take((wire, rest): &Self::Wire, reader: &mut Reader) -> Result<Self, WireError> {
        Ok(((wire.take)(reader)?, Rest::take(rest, reader)?))
    }

    fn schemas((wire, rest): &Self::Wire, schemas: &mut Vec<Schema>) {
        schemas.push((wire.schema)());
        Rest::schemas(rest, schemas);
    }
}

impl Caller {
    /// Calls a method in a worker.
    pub fn remote<P, const INDEX: usize, A, T>(&self, arguments: A) -> Pending<T>
    where
        P: RemoteMethod<INDEX, A, T>,
        A: Arguments,
    {
        let method = Method::new::<P>(P::SOURCE.name, serve::<P, INDEX, A, T>);
        self.call(method, |writer| arguments.put(&P::wire().0, writer), |reader| (P::wire().1.take)(reader))
    }
}

/// Runs a method in a worker.
pub(super) fn serve<P, const INDEX: usize, A, T>(
    pipeline: &mut P,
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), WireError>
where
    P: RemoteMethod<INDEX, A, T>,
    A: Arguments,
{
    let (arguments, result) = P::wire();
    let arguments = A::take(&arguments, reader)?;
    (result.put)(&pipeline.run(arguments), writer)
}

/// An entry of [`Remote::METHODS`](super::Remote::METHODS).
pub struct MethodEntry<P> {
    source: MethodSource,
    is_stream: bool,
    schemas: fn() -> (Vec<Schema>, Schema),
    handler: Handler<P>,
    call: CallByName,
}

impl<P> MethodEntry<P> {
    /// The entry of the method number `INDEX`.
    pub const fn of<const INDEX: usize, A, T>() -> Self
    where
        P: RemoteMethod<INDEX, A, T>,
        A: Arguments,
    {
        Self {
            source: P::SOURCE,
            is_stream: false,
            schemas: || schemas::<A, T>(P::wire()),
            handler: serve::<P, INDEX, A, T>,
            call: by_name::call::<P, INDEX, A, T>,
        }
    }

    /// The entry of the method number `INDEX`, whose calls can be put together.
    pub const fn of_batch<const INDEX: usize, A, T>() -> Self
    where
        P: BatchMethod<INDEX, A, T>,
        A: BatchArguments,
        T: RowsResult,
    {
        Self { call: by_name::call_batch::<P, INDEX, A, T>, ..Self::of::<INDEX, A, T>() }
    }

    /// The entry of the method number `INDEX`, which returns a stream.
    pub const fn of_stream<const INDEX: usize, A, T>() -> Self
    where
        P: RemoteStream<INDEX, A, T>,
        A: Arguments,
    {
        Self {
            source: P::SOURCE,
            is_stream: true,
            schemas: || schemas::<A, T>(P::wire()),
            handler: serve_stream::<P, INDEX, A, T>,
            call: by_name::call_stream::<P, INDEX, A, T>,
        }
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.source.exclusive
    }

    pub(super) fn call(&self) -> CallByName {
        self.call
    }

    pub(super) fn info(&self) -> MethodInfo<P> {
        let Self { source: MethodSource { name, doc, exclusive, parameters }, is_stream, schemas, handler, .. } = self;
        let (schemas, result) = schemas();
        let parameters = parameters.iter().zip(schemas).map(|(&name, schema)| Parameter { name, schema });
        let (exclusive, is_stream, parameters) = (*exclusive, *is_stream, parameters.collect());
        MethodInfo { name, doc, exclusive, is_stream, parameters, result, handler: *handler }
    }
}

fn schemas<A: Arguments, T>((arguments, result): MethodWire<A, T>) -> (Vec<Schema>, Schema) {
    let mut parameters = Vec::new();
    A::schemas(&arguments, &mut parameters);
    (parameters, (result.schema)())
}
