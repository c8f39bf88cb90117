//! `rzc serve --otlp`: spans of requests, calls and workers arrive at a collector, and logs at standard error.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod common;
#[path = "serve/server.rs"]
#[allow(dead_code, reason = "code of another test, too")]
mod server;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::any_service;
use axum_server::tls_rustls::RustlsConfig;
use common::{Folder, rzc};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use ray_zerocopy_serve::__private::protocol::grpc_inference_service_client::GrpcInferenceServiceClient;
use ray_zerocopy_serve::__private::protocol::model_infer_request::InferInputTensor;
use ray_zerocopy_serve::__private::protocol::{InferTensorContents, ModelInferRequest};
use rustix::process::Signal;
use serde_json::Value;
use server::{Served, request, write};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A span as the collector got it.
#[derive(Debug, Clone)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: String,
    fields: BTreeMap<String, String>,
    /// The process that has sent it, and the name of its service.
    process: u32,
    service: String,
    is_error: bool,
}

/// A collector, on a thread of its own.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fields(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for sender in request.into_inner().resource_spans {
            let resource = fields(&sender.resource.unwrap().attributes);
            let spans = sender.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let span = |span: opentelemetry_proto::tonic::trace::v1::Span| Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                fields: fields(&span.attributes),
                process: resource["process.pid"].parse().unwrap(),
                service: resource["service.name"].clone(),
                is_error: span.status.is_some_and(|status| status.code == 2),
            };
            self.0.lock().unwrap().extend(spans.map(span));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A file for TLS.
fn certificate(name: &str) -> String {
    format!("{}/../ray-zerocopy-serve/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

impl Collector {
    /// Starts a collector, which may have TLS. Returns it with its address.
    fn start(has_tls: bool) -> (Self, String) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let calls = any_service(TraceServiceServer::new(collector.clone()));
        let routes = Router::new().route("/{service}/{call}", calls).into_make_service();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                if has_tls {
                    rustls::crypto::ring::default_provider().install_default().unwrap();
                    let config = RustlsConfig::from_pem_file(certificate("server.pem"), certificate("server.key"));
                    let config = config.await.unwrap();
                    axum_server::from_tcp_rustls(listener, config).unwrap().serve(routes).await.unwrap();
                } else {
                    axum_server::from_tcp(listener).unwrap().serve(routes).await.unwrap();
                }
            });
        });
        (collector, format!("{}://{address}", if has_tls { "https" } else { "http" }))
    }

    fn spans(&self, name: &str) -> Vec<Span> {
        self.0.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }

    /// The only span of a name with a parent.
    fn child(&self, parent: &str, name: &str) -> Span {
        let found: Vec<_> = self.spans(name).into_iter().filter(|span| span.parent == parent).collect();
        let [only] = &found[..] else { panic!("{} spans `{name}`: {:#?}", found.len(), self.0.lock().unwrap()) };
        only.clone()
    }
}

/// Sends a request with `curl`. Returns the headers of the response, in lower case.
fn curl(served: &Served, traceparent: &str, more: &[&str]) -> BTreeMap<String, String> {
    let url = format!("http://{}/v2/models/sum/infer", served.http);
    let header = format!("traceparent: {traceparent}");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-o", "/dev/null", "-D", "-", "-H", &header, &url, "-d", &request(1).to_string()]).args(more);
    let text = String::from_utf8(curl.output().unwrap().stdout).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let pair = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    text.lines().filter_map(pair).collect()
}

/// Checks that the spans of a request lead to the method in a worker process.
fn check(collector: &Collector, root: &Span, owner: u32, workers: &[u32]) {
    assert_eq!((root.trace.as_str(), root.service.as_str()), (TRACE, "rzc serve"), "{root:?}");
    let call = collector.child(&root.id, "call");
    let queue = collector.child(&call.id, "queue");
    let worker = collector.child(&call.id, "worker");
    let method = collector.child(&worker.id, "method");
    for span in [root, &call, &queue, &worker] {
        assert_eq!((span.trace.as_str(), span.process), (TRACE, owner), "{span:?}");
    }
    assert_eq!((method.trace.as_str(), &method.service), (TRACE, &root.service), "{method:?}");
    assert!(workers.contains(&method.process), "{method:?}");
    assert_eq!(worker.fields["pid"], method.process.to_string());
    assert_eq!((&method.fields["call"], &method.fields["worker"]), (&call.fields["call"], &worker.fields["worker"]));
    assert_eq!(call.fields["outcome"], "ok");
}

#[test]
fn request_is_traced_to_the_worker() {
    let folder = Folder::new();
    write(&folder, "sum.rzg", 1.0);
    let (collector, endpoint) = Collector::start(false);
    let arguments = ["sum.rzg", "--otlp", &endpoint, "--log", "json", "--workers", "1"];
    let mut served = Served::start(&folder, &arguments);

    let headers = curl(&served, &format!("00-{TRACE}-{PARENT}-01"), &["-H", "X-Request-Id: mine-7"]);
    assert_eq!(headers["x-request-id"], "mine-7");
    let own = &headers["traceparent"];
    assert!(own.starts_with(&format!("00-{TRACE}-")) && !own.contains(PARENT), "{own}");

    // The same over gRPC.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let channel = Channel::from_shared(format!("http://{}", served.grpc)).unwrap().connect().await.unwrap();
        let mut client = GrpcInferenceServiceClient::new(channel);
        let contents = Some(InferTensorContents { fp32_contents: vec![1.0; 4], ..Default::default() });
        let input = InferInputTensor { contents, ..Default::default() };
        let input = InferInputTensor { name: "x".to_owned(), datatype: "FP32".to_owned(), shape: vec![1, 4], ..input };
        let mut request =
            Request::new(ModelInferRequest { model_name: "sum".to_owned(), inputs: vec![input], ..Default::default() });
        request.metadata_mut().insert("traceparent", format!("00-{TRACE}-{PARENT}-01").parse().unwrap());
        client.model_infer(request).await.unwrap()
    });
    assert!(answer.metadata().contains_key("x-request-id"));
    // Closes the connection.
    drop(runtime);

    // A parent that is not valid is not one, and one that is not sampled is not exported.
    for malformed in ["00-1-2-3", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        let own = curl(&served, malformed, &[])["traceparent"].clone();
        assert!(!own.contains(TRACE) && own.ends_with("-01"), "{own}");
    }
    let unsampled = curl(&served, "00-11111111111111111111111111111111-b7ad6b7169203331-00", &[]);
    assert!(unsampled["traceparent"].ends_with("-00"), "{unsampled:?}");
    let metrics = Command::new("curl").args(["-sS", &format!("http://{}/metrics", served.http)]).output().unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    assert!(metrics.contains("\nray_zerocopy_serve_traceparents_ignored_total 2\n"), "{metrics}");

    let failed = server::post(&served.http, "/v2/models/none/infer", &request(1).to_string());
    assert_eq!(failed.0, 404);
    let number = |pid: rustix::process::Pid| pid.as_raw_nonzero().get() as u32;
    let (owner, workers) = (number(served.pid()), served.workers().into_iter().map(number).collect::<Vec<_>>());
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert!(status.success(), "{log}");

    // What was left has been sent at the end, by the server and by its worker.
    let rest = collector.spans("POST /v2/models/{model}/infer");
    let of_client: Vec<_> = rest.iter().filter(|span| span.parent == PARENT).collect();
    let [root] = &of_client[..] else { panic!("{rest:#?}") };
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/v2/models/{model}/infer"),
        ("url.path", "/v2/models/sum/infer"),
        ("request_id", "mine-7"),
    ];
    for (field, value) in expected {
        assert_eq!(root.fields[field], value, "{root:?}");
    }
    assert_eq!(rest.iter().filter(|span| span.fields["http.response.status_code"] == "404").count(), 1);
    assert!(rest.iter().all(|span| !span.is_error && span.trace != "1".repeat(32)), "{rest:?}");
    let grpc = collector.spans("inference.GRPCInferenceService/ModelInfer");
    let [grpc] = &grpc[..] else { panic!("{grpc:#?}") };
    assert_eq!((grpc.parent.as_str(), grpc.fields["rpc.grpc.status_code"].as_str()), (PARENT, "0"));
    for root in [*root, grpc] {
        check(&collector, root, owner, &workers);
    }
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let line = lines.iter().find(|line| line["span"]["request_id"] == "mine-7").unwrap_or_else(|| panic!("{log}"));
    assert_eq!((&line["status"], &line["span"]["url.path"]), (&200.into(), &"/v2/models/sum/infer".into()));
}

#[test]
fn spans_are_exported_over_tls() {
    let folder = Folder::new();
    write(&folder, "sum.rzg", 1.0);
    let (collector, endpoint) = Collector::start(true);
    let arguments = ["sum.rzg", "--otlp", &endpoint, "--workers", "1"];
    let mut served = Served::start_with(&folder, &arguments, &[("SSL_CERT_FILE", &certificate("server-ca.pem"))]);
    curl(&served, &format!("00-{TRACE}-{PARENT}-01"), &[]);
    served.signal(Signal::TERM);
    let (status, log) = served.end();
    assert!(status.success(), "{log}");
    let rest = collector.spans("POST /v2/models/{model}/infer");
    let [root] = &rest[..] else { panic!("{rest:#?} {log}") };
    let worker = collector.child(&collector.child(&root.id, "call").id, "worker");
    let method = collector.child(&worker.id, "method");
    assert_ne!(method.process, root.process);
}

#[test]
fn wrong_endpoints_and_filters_are_errors() {
    let folder = Folder::new();
    write(&folder, "sum.rzg", 1.0);
    let wrong = rzc(&["serve", &folder.at("sum.rzg"), "--otlp", "localhost:4317"]);
    assert!(
        wrong.error().contains("expected the address of a collector for gRPC, `http://localhost:4317`, or with TLS"),
        "{wrong:?}"
    );
    let mut wrong = common::command(&["serve", &folder.at("sum.rzg"), "--log", "text"]);
    let output = wrong.env("RUST_LOG", "a=b=c").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("RUST_LOG selects nothing"), "{text}");
}
