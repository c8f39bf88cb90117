//! Serves models over HTTP and gRPC, on one copy of their weights.
//!
//! | you have | you write | clients |
//! | --- | --- | --- |
//! | a traced graph, a compiled one, or a TorchScript module | [`ModelRepository::add_file`] | KServe v2 over HTTP and gRPC, which Triton's clients speak |
//! | a sentence encoder and its `tokenizer.json` | [`RepositoryBuilder::tokenizer`] | OpenAI's embeddings |
//! | a pipeline with `#[remote]` methods | [`Methods`] | JSON, and server-sent events for streams |
//! | an axum application | [`Service::router`], [`Service::grpc_router`] | yours |
//! | no application | [`Server`], or `rzc serve` | all of them |
//!
//! Workers are processes, started from the executable of the server, so a program calls [`ray_zerocopy::init`] first.
//!
//! ```no_run
//! use ray_zerocopy_serve::{ModelRepository, Server, Service};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     ray_zerocopy::init();
//!     let models = ModelRepository::builder().workers(4).start()?;
//!     models.add_file("minilm", "minilm.rzg")?;
//!     Server::new(Service::builder(models).build()).http("0.0.0.0:8000").grpc("0.0.0.0:8001").run().await?;
//!     Ok(())
//! }
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `repository/` | models by name: loading, swapping and unloading them, and calls of them |
//! | `service` | what is served |
//! | `admission` | limits of calls and bytes in flight |
//! | `auth` | bearer tokens |
//! | `metrics` | the metrics of this process for Prometheus |
//! | `methods` | methods of pipelines by name |
//! | `rest/` | KServe v2 over HTTP, OpenAI's embeddings, and methods of pipelines |
//! | `grpc/` | KServe v2 over gRPC |
//! | `trace/` | logs, traces, and the spans of requests |
//! | `server/` | listeners, TLS, and draining |
//! | `tensor/` | tensors of requests and responses |
//! | `error` | why a request has no result |

#![forbid(unsafe_code)]

mod admission;
mod auth;
mod error;
mod grpc;
mod methods;
mod metrics;
mod repository;
mod rest;
mod server;
mod service;
mod tensor;
mod trace;

pub use self::admission::Limits;
pub use self::error::{ErrorKind, ServeError};
pub use self::methods::Methods;
pub use self::metrics::{Metrics, MetricsError};
pub use self::repository::{
    IndexEntry, Inference, LoadOutcome, ModelInfo, ModelRepository, ModelState, RepositoryBuilder, TensorPort,
};
pub use self::server::tls::Tls;
pub use self::server::{Running, Server};
pub use self::service::{Service, ServiceBuilder};
pub use self::trace::{LogFormat, Tracing, TracingError, TracingGuard};

/// The messages of the protocol and its client, for this workspace's tests and benchmarks.
#[doc(hidden)]
pub mod __private {
    pub use crate::grpc::protocol;
}
