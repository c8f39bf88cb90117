//! The export of spans over OTLP, and how OpenTelemetry names spans of other processes.

use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use ray_zerocopy::observe::{Propagator, TraceContext, set_propagator};
use tokio::runtime::Runtime;
use tonic::transport::ClientTlsConfig;
use tracing::{Span, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::Registry;

use super::subscriber::TracingError;

/// Interval at which spans are sent.
const INTERVAL: Duration = Duration::from_millis(500);
/// Time for one message to the collector, and for the last spans of a process.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Spans that wait to be sent. Further ones are lost.
const QUEUE: usize = 1 << 16;
/// The target of an application's own spans is any but these, which the export itself uses.
const EXPORT: [&str; 6] = ["h2", "hyper", "hyper_util", "opentelemetry", "tonic", "tower"];

/// Sends the spans of this process.
pub(super) struct Exporter {
    provider: SdkTracerProvider,
    /// Runs the connection. `None` when it has ended.
    runtime: Option<Runtime>,
}

/// Starts to send spans to a collector. Returns the layer that collects them.
pub(super) fn start(
    endpoint: &str,
    service: &str,
) -> Result<(Exporter, Box<dyn Layer<Registry> + Send + Sync>), TracingError> {
    let failed = |reason: String| TracingError::Export { endpoint: endpoint.to_owned(), reason };
    let is_tls = endpoint.starts_with("https://");
    if !is_tls && !endpoint.starts_with("http://") {
        let expected = "expected the address of a collector for gRPC, `http://localhost:4317`, or with TLS `https://…`";
        return Err(failed(expected.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("ray-zerocopy otlp")
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let exporter = {
        let _entered = runtime.enter();
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(TIMEOUT);
        if is_tls {
            exporter = exporter.with_tls_config(ClientTlsConfig::new().with_native_roots());
        }
        exporter.build().map_err(|error| failed(error.to_string()))?
    };
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_scheduled_delay(INTERVAL).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let mut resource = Resource::builder().with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())));
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service.to_owned());
    }
    let provider = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource.build()).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("ray-zerocopy"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    let others = EXPORT.map(|target| (target, LevelFilter::OFF));
    let layer = layer.with_filter(Targets::new().with_default(LevelFilter::INFO).with_targets(others)).boxed();
    // A program that has one of its own names the spans.
    let _is_first = set_propagator(Propagator::new(context, set_parent));
    Ok((Exporter { provider, runtime: Some(runtime) }, layer))
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(TIMEOUT) {
            warn!(%error, "the last spans may not have been sent");
        }
        if let Some(runtime) = self.runtime.take() {
            // Not by its own drop, which may not run inside of another runtime.
            runtime.shutdown_background();
        }
    }
}

/// How other processes name a span.
fn context(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let found = span.span_context();
    if !found.is_valid() {
        return None;
    }
    let (trace, id, flags) = (found.trace_id(), found.span_id(), found.trace_flags().to_u8());
    let parsed: TraceContext = format!("00-{trace}-{id}-{flags:02x}").parse().ok()?;
    Some(parsed.with_state(&found.trace_state().header()))
}

/// Makes the span of another process the parent of a new one.
fn set_parent(span: &Span, parent: &TraceContext) {
    let (Ok(trace), Ok(id)) = (TraceId::from_hex(parent.trace_id()), SpanId::from_hex(parent.span_id())) else {
        return;
    };
    let flags = if parent.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    // A `tracestate` that cannot be parsed is dropped, and the parent is kept: W3C requires both.
    let state = parent.tracestate().parse::<TraceState>().unwrap_or_default();
    let parent = Context::new().with_remote_span_context(SpanContext::new(trace, id, flags, true, state));
    // Fails for a span that is not collected.
    let _ = span.set_parent(parent);
}
