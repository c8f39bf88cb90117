//! What a worker process is told of a call, and how spans cross processes.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tracing::{Span, error, info_span};

use super::TARGET;
use super::context::TraceContext;
use crate::codec;

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

/// What a worker process is told of a call, for its span and logs: encoded [`Fields`].
///
/// They are encoded apart from the request, so that it has one value more, and a worker that does not trace does not
/// read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct CallContext(#[serde(with = "serde_bytes")] Vec<u8>);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Fields<'a> {
    /// Number of the call in its owner.
    #[serde(rename = "c")]
    call: u64,
    #[serde(rename = "m")]
    method: Cow<'a, str>,
    /// The pipeline.
    #[serde(rename = "p")]
    model: Cow<'a, str>,
    /// Index of the worker, if it has one.
    #[serde(rename = "w")]
    worker: Option<usize>,
    /// The owner's span, if it has a name: `traceparent` and `tracestate`.
    #[serde(rename = "t")]
    parent: Option<(Cow<'a, str>, Cow<'a, str>)>,
}

impl CallContext {
    /// `span` is the owner's span. Returns `None` if the context cannot be encoded, which is logged.
    pub(super) fn new(span: &Span, call: u64, method: &str, model: &str, worker: Option<usize>) -> Option<Self> {
        let parent = context(span);
        let parent = parent.as_ref().map(|parent| (parent.traceparent().into(), parent.tracestate().into()));
        Fields { call, method: method.into(), model: model.into(), worker, parent }.encode()
    }

    /// Creates the span of the method, in a worker process.
    fn method_span(&self) -> Span {
        codec::decode(&self.0).map(Fields::method_span).unwrap_or_else(|reason| {
            error!(target: TARGET, "the context of a call cannot be read: {reason}");
            Span::none()
        })
    }
}

impl Fields<'_> {
    fn encode(&self) -> Option<CallContext> {
        let encoded = codec::encode(self);
        encoded.map(CallContext).map_err(|reason| error!(target: TARGET, "the context of a call: {reason}")).ok()
    }

    fn method_span(self) -> Span {
        let Self { call, method, model, worker, parent } = self;
        let (method, model, pid) = (&*method, &*model, std::process::id());
        let span = info_span!(target: TARGET, parent: None, "method", call, method, model, worker, pid);
        let parent = parent.and_then(|(parent, state)| Some(parent.parse::<TraceContext>().ok()?.with_state(&state)));
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
    use super::Fields;
    use crate::codec;

    #[test]
    fn contexts_are_read_as_they_were_written() {
        let parent = Some(("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(), "".into()));
        for (worker, parent) in [(Some(3), parent), (None, None)] {
            let fields = Fields { call: 7, method: "double".into(), model: "Model".into(), worker, parent };
            let sent = codec::encode(&fields.encode().unwrap()).unwrap();
            let received: super::CallContext = codec::decode(&sent).unwrap();
            assert_eq!(codec::decode::<Fields<'_>>(&received.0).unwrap(), fields);
        }
    }
}
