//! The `Backend` trait, and the types that backends and wrappers exchange.

use super::Engine;
use super::program::Program;
use super::settings::Settings;
use std::sync::Arc;

use crate::arena::arena::Arena;
use crate::error::Result;

/// Backend of a wrapper: [`Threads`](crate::Threads) of this process, a
/// [`LocalPool`](crate::LocalPool) of worker processes, or a Ray cluster. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a backend of wrappers",
    label = "not `Threads`, a `LocalPool`, or a Ray cluster"
)]
pub trait Backend: sealed::Sealed + Send + Sync + 'static {
    /// Moves an arena to memory that the backend's workers can open.
    #[doc(hidden)]
    fn adopt(&self, arena: Arena) -> Result<Arena>;

    /// Returns the workers that run tasks.
    #[doc(hidden)]
    fn tasks(&self) -> Result<EngineHandle>;

    /// Starts actors that load a program.
    #[doc(hidden)]
    fn actors(&self, spec: ActorSpec) -> Result<EngineHandle>;

    /// Returns a handle of the backend, for a wrapper that starts actors later.
    #[doc(hidden)]
    fn handle(&self) -> Arc<dyn Backend>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// Handle of an engine.
#[derive(Clone)]
#[doc(hidden)]
pub struct EngineHandle(pub(crate) Arc<dyn Engine>);

/// Parameters of the actors that a backend starts.
#[doc(hidden)]
pub struct ActorSpec {
    pub(crate) settings: Settings,
    pub(crate) program: Arc<Program>,
    /// Whether methods of the pipeline return streams.
    #[cfg_attr(not(feature = "ray"), expect(dead_code, reason = "only actors of Ray are prepared for streams"))]
    pub(crate) has_streams: bool,
}
