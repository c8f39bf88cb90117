//! TODO.

use super::Engine;
use super::program::Program;
use super::settings::Settings;
use std::sync::Arc;

use crate::arena::arena::Arena;

/// Where a wrapper's calls can run: [`LocalPool`](crate::LocalPool) workers of this machine, or a Ray cluster.
///
/// Nobody else implements it.
pub trait Backend: Home + Sized {}

/// What a wrapper needs of a place.
pub trait Home: Send + Sync + 'static {
    /// The arena as the place's workers can get at it.
    #[doc(hidden)]
    fn adopt(&self, arena: Arena) -> crate::error::Result<Arena>;

    /// The workers that run tasks.
    #[doc(hidden)]
    fn tasks(&self) -> crate::error::Result<Tasks>;

    /// Starts actors that load a program.
    #[doc(hidden)]
    fn actors(&self, start: Start) -> crate::error::Result<Tasks>;

    /// The place, to be kept.
    #[doc(hidden)]
    fn home(&self) -> Arc<dyn Home>;
}

/// An engine, as wrappers keep it.
#[derive(Clone)]
pub struct Tasks(pub(crate) Arc<dyn Engine>);

/// Actors that are to be started.
pub struct Start {
    pub(crate) settings: Settings,
    pub(crate) program: Arc<Program>,
}
