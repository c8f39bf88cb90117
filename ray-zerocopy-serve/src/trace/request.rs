//! The span of a request: its parent from `traceparent`, and what goes back to the client.

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use metrics::counter;
use ray_zerocopy::observe::TraceContext;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, info, info_span};

use crate::grpc::protocol::grpc_inference_service_server::SERVICE_NAME;

/// Requests whose `traceparent` was not valid.
pub(crate) const IGNORED: &str = "ray_zerocopy_serve_traceparents_ignored_total";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The most bytes of the id of a request that is sent back.
const ID: usize = 128;

/// Runs a request inside of its span, and logs it. The response has the id of the request, and the span's name for
/// other processes.
pub(crate) async fn trace(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let parent = parent(request.headers());
    let span = span(&request, &id);
    // An application may have a span of its own for the request, which has this parent.
    if let Some(parent) = parent.filter(|_| TraceContext::of(&Span::current()).is_none()) {
        parent.set_parent_of(&span);
    }
    let own = TraceContext::of(&span);
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    // With no message, a status of gRPC is a header.
    record_grpc(&span, response.headers());
    span.in_scope(|| info!(status = status.as_u16(), micros = begun.elapsed().as_micros() as u64, "request"));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if let Some(own) = own.and_then(|own| HeaderValue::try_from(own.traceparent()).ok()) {
        headers.insert(TRACEPARENT, own);
    }
    if span.is_disabled() { response } else { response.map(|body| Body::new(InSpan { body, span })) }
}

/// Records the status of a call over gRPC.
fn record_grpc(span: &Span, headers: &HeaderMap) {
    let Some(code) = headers.get("grpc-status").and_then(|value| value.to_str().ok()) else { return };
    span.record("rpc.grpc.status_code", code);
    if code != "0" {
        span.record("otel.status_code", "ERROR");
    }
}

/// A body whose parts are made inside of the span of the request, which ends with it: a stream makes its calls then.
struct InSpan {
    body: Body,
    span: Span,
}

impl http_body::Body for InSpan {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, span } = &mut *self;
        let polled = span.in_scope(|| Pin::new(body).poll_frame(cx));
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            record_grpc(span, trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Creates the span of a request.
fn span(request: &Request, id: &HeaderValue) -> Span {
    let (method, path) = (request.method(), request.uri().path());
    // Checks that an orchestrator makes every few seconds say nothing.
    if path.contains("/health/") {
        return Span::none();
    }
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let call = path.strip_prefix('/').filter(|path| path.starts_with(SERVICE_NAME));
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let version = match request.version() {
        Version::HTTP_2 => "2",
        Version::HTTP_11 => "1.1",
        _ => "1.0",
    };
    let span = info_span!(
        target: "ray_zerocopy_serve",
        "request",
        otel.kind = "server",
        otel.name = Empty,
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = route,
        http.response.status_code = Empty,
        network.protocol.version = version,
        rpc.system = Empty,
        rpc.grpc.status_code = Empty,
        url.path = path,
        user_agent.original = header("user-agent"),
        request_id = id.to_str().ok(),
    );
    match (call, route) {
        (Some(call), _) => {
            span.record("otel.name", call).record("rpc.system", "grpc");
        }
        (None, Some(route)) => {
            span.record("otel.name", format!("{method} {route}"));
        }
        (None, None) => {
            span.record("otel.name", method.as_str());
        }
    }
    span
}

/// The client's span. One that is not valid is ignored and counted.
fn parent(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let first = values.next()?;
    let text = if values.next().is_some() { "several" } else { first.to_str().unwrap_or("not text") };
    match text.parse::<TraceContext>() {
        Ok(context) => {
            let states: Vec<_> = headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
            Some(context.with_state(&states.join(",")))
        }
        Err(error) => {
            counter!(IGNORED).increment(1);
            debug!(target: "ray_zerocopy_serve", %error, "ignored");
            None
        }
    }
}

/// The id that the client has given the request, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static IDS: AtomicU64 = AtomicU64::new(0);
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
    let is_visible =
        |value: &&HeaderValue| (1..=ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    if let Some(given) = headers.get(REQUEST_ID).filter(is_visible) {
        return given.clone();
    }
    let number = IDS.fetch_add(1, Ordering::Relaxed);
    let [high, low] = KEYS.each_ref().map(|key| key.hash_one(number));
    HeaderValue::try_from(format!("{high:016x}{low:016x}")).unwrap_or(HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{parent, request_id};

    #[test]
    fn ids_of_requests_are_those_of_the_client_if_they_are_short_and_visible() {
        let mut headers = HeaderMap::new();
        let (one, two) = (request_id(&headers), request_id(&headers));
        assert!(one != two && one.len() == 32);
        headers.insert("x-request-id", HeaderValue::from_static("mine-7"));
        assert_eq!(request_id(&headers), "mine-7");
        for given in ["", "a b", &"x".repeat(129)] {
            headers.insert("x-request-id", HeaderValue::try_from(given).unwrap());
            assert_eq!(request_id(&headers).len(), 32, "{given}");
        }
    }

    #[test]
    fn only_a_valid_parent_is_taken() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::new();
        assert!(parent(&headers).is_none());
        headers.insert("traceparent", HeaderValue::from_static(valid));
        headers.insert("tracestate", HeaderValue::from_static("a=1"));
        let found = parent(&headers).unwrap();
        assert_eq!((found.traceparent(), found.tracestate()), (valid, "a=1"));
        headers.append("traceparent", HeaderValue::from_static(valid));
        assert!(parent(&headers).is_none(), "there are two");
        headers.insert("traceparent", HeaderValue::from_static("00-1-2-3"));
        assert!(parent(&headers).is_none());
    }
}
