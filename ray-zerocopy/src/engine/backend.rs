//! Backends: where a wrapper's calls can run.

use super::Engine;
use super::program::Program;
use super::settings::Settings;
use std::sync::Arc;

use crate::arena::arena::Arena;

/// A backend for wrappers: [`LocalPool`](crate::LocalPool) workers of this machine, or a Ray
/// cluster.
///
/// Sealed: it cannot be implemented outside of this crate.
pub trait Backend: Home + Sized {}

/// Operations that a backend provides to wrappers.
pub trait Home: Send + Sync + 'static {
    /// Returns the arena in a form that the backend's workers can access.
    #[doc(hidden)]
    fn adopt(&self, arena: Arena) -> crate::error::Result<Arena>;

    /// Returns the workers that run tasks.
    #[doc(hidden)]
    fn tasks(&self) -> crate::error::Result<Tasks>;

    /// Starts actors that load a program.
    #[doc(hidden)]
    fn actors(&self, start: Start) -> crate::error::Result<Tasks>;

    /// Returns a shared handle to the backend.
    #[doc(hidden)]
    fn home(&self) -> Arc<dyn Home>;
}

/// A shared engine, as wrappers hold it.
#[derive(Clone)]
pub struct Tasks(pub(crate) Arc<dyn Engine>);

/// Parameters for starting actors.
pub struct Start {
    pub(crate) settings: Settings,
    pub(crate) program: Arc<Program>,
}
