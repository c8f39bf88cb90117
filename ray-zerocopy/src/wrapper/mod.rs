//! Wrappers: a pipeline and an engine, joined. Methods of a pipeline become calls, and results come back.

mod actor;
mod caller;
mod pending;
mod slot;
mod task;
pub mod wire;

pub use actor::{Actor, ActorWrapper, Actors};
pub use caller::{Caller, Method};
pub use pending::{Gather, Pending, gather};
pub use task::TaskWrapper;

use crate::pipeline::Root;

/// A pipeline whose methods can be called from afar. Implemented by `#[ray_zerocopy::remote]`.
#[diagnostic::on_unimplemented(
    message = "no method of `{Self}` can be called from afar",
    label = "no `#[ray_zerocopy::remote]` on an `impl` block of this type",
    note = "write `#[ray_zerocopy::remote]` above the `impl {Self}` block that holds the methods to call"
)]
pub trait Remote: Root {
    /// The methods that tasks have: those that take `&self`.
    type Tasks: From<Caller>;
    /// The methods that actors have: those that take `&self` or `&mut self`.
    type Actors: From<Caller>;
}
