//! The KServe v2 protocol over gRPC, with Triton's calls for the repository.
//!
//! | file | what |
//! | --- | --- |
//! | `admit` | admission of calls, and the bytes of their messages |
//! | `generated/` | messages and service of `proto/inference.proto` |
//! | `service` | the calls |
//! | `infer` | requests and responses of calls of models |
//! | `status` | errors as gRPC statuses, and deadlines |

mod admit;
mod infer;
mod service;
mod status;

/// The messages and the service of the protocol, which are generated.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    rustdoc::invalid_html_tags,
    unused_qualifications,
    reason = "generated code"
)]
#[rustfmt::skip]
#[path = "generated/inference.rs"]
pub mod protocol;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::any_service;
use tonic::Status;

use self::protocol::grpc_inference_service_server::{GrpcInferenceServiceServer, SERVICE_NAME};
use self::service::Calls;
use crate::auth::require_token;
use crate::error::ServeError;
use crate::service::Service;
use crate::trace::request::trace;

/// The routes of a service.
pub(crate) fn router(service: &Service) -> Router {
    // `admit` has checked the size of each message.
    let calls = GrpcInferenceServiceServer::new(Calls(service.clone()))
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    Router::new()
        .route(&format!("/{SERVICE_NAME}/{{*call}}"), any_service(calls))
        .layer(from_fn_with_state(service.clone(), admit::admit))
        .layer(from_fn_with_state(service.clone(), limit_time))
        .layer(from_fn_with_state(service.clone(), require_token))
        .layer(from_fn(trace))
}

/// Ends a call whose client does not send its message, or that takes longer than any may.
async fn limit_time(State(service): State<Service>, request: Request, next: Next) -> Response {
    if request.uri().path().ends_with("/ModelStreamInfer") {
        return next.run(request).await;
    }
    let limits = service.admission().limits();
    let longest = limits.receive.saturating_add(limits.timeout);
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Status::from(ServeError::deadline(longest)).into_http(),
    }
}
