//! What a worker process is told of a call, and how spans cross processes.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tracing::{Span, info_span};

use super::TARGET;
use super::context::TraceContext;

/// How spans cross processes, as a backend of traces does it: OpenTelemetry, for example.
#[derive(Debug, Clone, Copy)]
pub struct Propagator {
    context: fn(&Span) -> Option<TraceContext>,
    set_parent: fn(&Span, &TraceContext),
}

impl Propagator {
    /// `context` returns how other processes name a span, if it has a name. `set_parent` makes the span of another
    /// process the parent of a new one.
    pub fn new(context: fn(&Span) -> Option<TraceContext>, set_parent: fn(&Span, &TraceContext)) -> Self {
        Self { context, set_parent }
    }
}

static PROPAGATOR: OnceLock<Propagator> = OnceLock::new();

/// Sets how spans cross processes. Returns `false` if it has been set before.
pub(crate) fn set_propagator(propagator: Propagator) -> bool {
    PROPAGATOR.set(propagator).is_ok()
}

/// How other processes name a span.
pub(crate) fn context(span: &Span) -> Option<TraceContext> {
    PROPAGATOR.get().and_then(|propagator| (propagator.context)(span))
}

/// Makes the span of another process the parent of a new one.
pub(crate) fn set_parent(span: &Span, parent: &TraceContext) {
    if let Some(propagator) = PROPAGATOR.get() {
        (propagator.set_parent)(span, parent);
    }
}

/// What a worker process is told of a call, for its span and logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallContext {
    /// Number of the call in its owner.
    call: u64,
    method: Cow<'static, str>,
    /// The pipeline.
    model: String,
    /// Index of the worker, if it has one.
    worker: Option<usize>,
    /// The owner's span, if it has a name: `traceparent` and `tracestate`.
    parent: Option<(String, String)>,
}

impl CallContext {
    /// `span` is the owner's span.
    pub(super) fn new(span: &Span, call: u64, method: &'static str, model: &str, worker: Option<usize>) -> Self {
        let parent = context(span).map(|parent| (parent.traceparent().to_owned(), parent.tracestate().to_owned()));
        Self { call, method: method.into(), model: model.to_owned(), worker, parent }
    }

    /// Creates the span of the method, in a worker process.
    fn method_span(&self) -> Span {
        let Self { call, method, model, worker, parent } = self;
        let (method, pid) = (&**method, std::process::id());
        let span = info_span!(target: TARGET, parent: None, "method", call, method, model, worker, pid);
        let parent =
            parent.as_ref().and_then(|(parent, state)| Some(parent.parse::<TraceContext>().ok()?.with_state(state)));
        if let Some(parent) = parent {
            set_parent(&span, &parent);
        }
        span
    }
}

/// Runs a method in a worker process, inside of its span.
pub(crate) fn run<R>(context: Option<&CallContext>, method: impl FnOnce() -> R) -> R {
    match context {
        Some(context) if super::is_on() => context.method_span().in_scope(method),
        _ => method(),
    }
}

#[cfg(test)]
mod tests {
    use super::CallContext;
    use crate::codec;

    #[test]
    fn contexts_are_read_as_they_were_written() {
        let parent = Some(("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(), String::new()));
        for (worker, parent) in [(Some(3), parent), (None, None)] {
            let context = CallContext { call: 7, method: "double".into(), model: "Model".to_owned(), worker, parent };
            let bytes = codec::encode(&context).unwrap();
            assert_eq!(codec::decode::<CallContext>(&bytes).unwrap(), context);
        }
    }
}
