//! The trait of what runs a wrapper's calls, and what it exchanges with wrappers.

use super::Engine;
use super::program::Program;
use super::settings::Settings;
use std::sync::Arc;

use crate::arena::arena::Arena;
use crate::error::Result;

/// Backend of a wrapper: a [`LocalPool`](crate::LocalPool) of this machine, or a Ray cluster. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a backend of wrappers",
    label = "neither a `LocalPool` nor a Ray cluster"
)]
pub trait Backend: sealed::Sealed + Send + Sync + 'static {
    /// Brings an arena to where the workers of the backend can open it.
    #[doc(hidden)]
    fn adopt(&self, arena: Arena) -> Result<Arena>;

    /// Returns the workers that run tasks.
    #[doc(hidden)]
    fn tasks(&self) -> Result<EngineHandle>;

    /// Starts actors that load a program.
    #[doc(hidden)]
    fn actors(&self, spec: ActorSpec) -> Result<EngineHandle>;

    /// A handle of the backend, for a wrapper that starts actors later.
    #[doc(hidden)]
    fn handle(&self) -> Arc<dyn Backend>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// An engine, as wrappers hold it.
#[derive(Clone)]
#[doc(hidden)]
pub struct EngineHandle(pub(crate) Arc<dyn Engine>);

/// The actors that a backend is to start.
#[doc(hidden)]
pub struct ActorSpec {
    pub(crate) settings: Settings,
    pub(crate) program: Arc<Program>,
}
