//! Spans of calls, for the crate `tracing`: `call` → `queue` → `batch` → `worker` → `method`.
//!
//! The owner opens and closes the spans of a call, on the thread that changes the state of the call. The worker that
//! runs the method, a process or a thread, enters the span `method`, so that log events of the method belong to it. A
//! worker process gets the [context](remote::CallContext) with the request.
//!
//! Without a subscriber that is interested, and a set-up of workers, a call costs the check of two static
//! values, and its message says nothing of traces.
//!
//! | file | what |
//! | --- | --- |
//! | `spans` | the spans of a call and of a batch |
//! | `context` | a span as other processes name it, in the form of W3C |
//! | `remote` | what a worker process is told of a call, and how spans cross processes |
//! | `setup` | what worker processes run when they start, to observe themselves |

pub(crate) mod context;
pub(crate) mod remote;
pub(crate) mod setup;
pub(crate) mod spans;

/// The target of all spans, for filters.
pub(crate) const TARGET: &str = "ray_zerocopy";

/// Returns `true` if calls are traced.
pub(crate) fn is_on() -> bool {
    tracing::span_enabled!(target: TARGET, tracing::Level::INFO, "call") || setup::is_set()
}
