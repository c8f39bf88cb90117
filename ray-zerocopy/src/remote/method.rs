//! Remote methods as types: the trait that `#[ray_zerocopy::remote]` implements for each method,
//! and the generic code that uses it.
//!
//! The macro writes one impl of [`RemoteMethod`] for each method. Calling the method, running it in
//! a worker and listing it are generic functions here, so that the macro's code stays small.

use super::caller::{Caller, Method};
use super::hosted::Handler;
use super::pending::Pending;
use super::schema::{MethodInfo, Parameter, Schema};
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
fn serve<P, const INDEX: usize, A, T>(
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
    schemas: fn() -> (Vec<Schema>, Schema),
    handler: Handler<P>,
}

impl<P> MethodEntry<P> {
    /// The entry of the method number `INDEX`.
    pub const fn of<const INDEX: usize, A, T>() -> Self
    where
        P: RemoteMethod<INDEX, A, T>,
        A: Arguments,
    {
        Self { source: P::SOURCE, schemas: schemas::<P, INDEX, A, T>, handler: serve::<P, INDEX, A, T> }
    }

    pub(super) fn info(&self) -> MethodInfo<P> {
        let Self { source: MethodSource { name, doc, exclusive, parameters }, schemas, handler } = self;
        let (schemas, result) = schemas();
        let parameters = parameters.iter().zip(schemas).map(|(&name, schema)| Parameter { name, schema });
        MethodInfo { name, doc, exclusive: *exclusive, parameters: parameters.collect(), result, handler: *handler }
    }
}

fn schemas<P, const INDEX: usize, A, T>() -> (Vec<Schema>, Schema)
where
    P: RemoteMethod<INDEX, A, T>,
    A: Arguments,
{
    let (arguments, result) = P::wire();
    let mut parameters = Vec::new();
    A::schemas(&arguments, &mut parameters);
    (parameters, (result.schema)())
}
