//! Wrappers, which join a pipeline and an engine: methods of the pipeline become calls that run in
//! workers.

pub(crate) mod actor;
pub(crate) mod actors;
pub(crate) mod batch_method;
pub(crate) mod by_name;
pub(crate) mod caller;
pub(crate) mod canceller;
pub(crate) mod generations;
pub(crate) mod hosted;
pub(crate) mod method;
pub(crate) mod pending;
pub(crate) mod rows;
pub(crate) mod schema;
pub(crate) mod stream_method;
pub(crate) mod streaming;
pub(crate) mod swap;
pub(crate) mod task;
pub(crate) mod ticket;
pub mod untyped;
pub(crate) mod wire;
pub(crate) mod wire_tensors;

use self::caller::{Caller, Method};
use self::method::MethodEntry;
use self::schema::MethodInfo;

use crate::arena::arena::Arena;
use crate::pipeline::rebuild::Root;

/// A pipeline whose methods can be called remotely. Implemented by `#[ray_zerocopy::remote]`.
#[diagnostic::on_unimplemented(
    message = "no method of `{Self}` can be called remotely",
    label = "no `#[ray_zerocopy::remote]` on an `impl` block of this type",
    note = "write `#[ray_zerocopy::remote]` above the `impl {Self}` block that holds the methods to call"
)]
pub trait Remote: Root {
    /// The methods that tasks have: those that take `&self`.
    type Tasks: From<Caller>;
    /// The methods that actors have: those that take `&self` or `&mut self`.
    type Actors: From<Caller>;

    /// The methods in the order of the source, those that return a stream among them, for callers that do not know
    /// them at compile time. A method with a `where` clause of its own is not listed, since not every pipeline of the type
    /// has it.
    ///
    /// ```
    /// # use burn::{nn::{Linear, LinearConfig}, tensor::{Device, Tensor}};
    /// use ray_zerocopy::{Pipeline, Remote};
    ///
    /// #[derive(Pipeline)]
    /// #[pipeline(init = Model::new)]
    /// struct Model { head: Linear }
    ///
    /// #[ray_zerocopy::remote]
    /// impl Model {
    ///     pub fn new(device: &Device) -> Self { Self { head: LinearConfig::new(4, 2).init(device) } }
    ///
    ///     /// Scores of each row.
    ///     pub fn predict(&self, rows: Tensor<2>) -> Tensor<2> { self.head.forward(rows) }
    /// }
    ///
    /// let methods = Model::methods();
    /// assert_eq!((methods[0].name, methods[0].doc), ("predict", "Scores of each row."));
    /// assert_eq!(methods[0].parameters[0].name, "rows");
    /// ```
    // Hidden: `ray-zerocopy-python` is the only consumer outside of this crate.
    #[doc(hidden)]
    fn methods() -> Vec<MethodInfo<Self>> {
        Self::METHODS.iter().map(MethodEntry::info).collect()
    }

    /// Whether any method returns a stream.
    #[doc(hidden)]
    const STREAMS: bool = false;

    /// Whether any method takes `&mut self`.
    #[doc(hidden)]
    const STATEFUL: bool = false;

    /// Moves the state of an actor from the pipeline with the old weights to that with the new ones.
    #[doc(hidden)]
    fn on_swap() -> Option<fn(&mut Self, &mut Self)> {
        None
    }

    /// The method with which a worker loads the next generation of weights.
    #[doc(hidden)]
    fn probe() -> Method {
        swap::probe_of::<Self>()
    }

    /// Returns a difference between two arenas with the same tensors, because of which one cannot take the
    /// place of the other.
    #[doc(hidden)]
    fn difference(_current: &Arena, _next: &Arena) -> Option<String> {
        None
    }

    /// The methods, as [`methods`](Self::methods) reads them.
    #[doc(hidden)]
    const METHODS: &'static [MethodEntry<Self>];
}
