//! Spans of calls, and what worker processes run to observe themselves.

use std::any::Any;

use tracing::Span;

use crate::engine::trace::context::TraceContext;
use crate::engine::trace::remote::{self, Propagator};
use crate::engine::trace::setup;

/// Why workers cannot run a function when they start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("workers cannot run this set-up: {reason}")]
#[non_exhaustive]
pub struct WorkerSetUpError {
    /// What is wrong with the function.
    pub reason: String,
}

/// Runs a function in each worker process that starts from now on, before it loads a pipeline: to install a
/// subscriber of `tracing`, for example. The process keeps the result, and drops it before it exits, unless it is
/// killed. Replaces an earlier function.
///
/// Workers of another program ([`LocalPoolBuilder::program`](crate::engine::LocalPoolBuilder::program)) do not run
/// it. If it panics, a worker does not start; on Ray, the worker prints that and runs calls without it.
///
/// ```no_run
/// use std::any::Any;
///
/// fn log_to(file: String) -> Box<dyn Any> {
///     // Here: install a subscriber that writes to the file, and return its guard.
///     Box::new(file)
/// }
///
/// ray_zerocopy::observe::set_worker_set_up(log_to, "workers.log")?;
/// # Ok::<_, ray_zerocopy::observe::WorkerSetUpError>(())
/// ```
///
/// # Errors
/// If the function is not part of the executable, but of a shared library.
pub fn set_worker_set_up(
    function: fn(String) -> Box<dyn Any>,
    argument: impl Into<String>,
) -> Result<(), WorkerSetUpError> {
    setup::set(function, argument.into()).map_err(|error| WorkerSetUpError { reason: error.to_string() })
}

/// Sets how spans cross processes, in this process. Returns `false` if it has been set before.
pub fn set_propagator(propagator: Propagator) -> bool {
    remote::set_propagator(propagator)
}

impl TraceContext {
    /// How other processes name a span, if there is a [`Propagator`] and the span is recorded.
    pub fn of(span: &Span) -> Option<Self> {
        remote::context(span)
    }

    /// Makes this the parent of a new span, which has not been entered and has no children. Does nothing without a
    /// [`Propagator`].
    pub fn set_parent_of(&self, span: &Span) {
        remote::set_parent(span, self);
    }
}
