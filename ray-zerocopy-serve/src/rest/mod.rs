//! The KServe v2 protocol over HTTP with JSON and binary tensors, OpenAI's embeddings, and methods of pipelines.
//!
//! | file | what |
//! | --- | --- |
//! | `body` | receives bodies within the limits, and sends those of several parts |
//! | `reply` | errors and JSON as responses |
//! | `infer` | calls of models |
//! | `request`, `response` | their requests and responses |
//! | `metadata` | server, health and models |
//! | `repository` | index, load and unload |
//! | `embeddings` | OpenAI's embeddings |
//! | `observe`, `status.html` | metrics, the status, and the page that shows it |
//! | `pipelines` | methods of pipelines |

mod body;
mod embeddings;
mod infer;
mod metadata;
mod observe;
mod pipelines;
mod reply;
mod repository;
mod request;
mod response;

pub(crate) use self::embeddings::failed as openai_error;
pub(crate) use self::metadata::{EXTENSIONS, NAME, no_shared_memory};
pub(crate) use self::repository::{load_in_background, refuse_parameters, unload_in_background};
pub(crate) use self::request::{SEQUENCES, refuse_shared_memory, sequence_error};
pub(crate) use self::response::no_output;

use std::any::Any;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth::require_token;
use crate::error::{ErrorKind, ServeError};
use crate::service::Service;
use crate::trace::request::trace;

/// The routes of a service.
pub(crate) fn router(service: &Service) -> Router {
    let shared_memory = any(metadata::shared_memory);
    Router::new()
        .route("/v2", get(metadata::server))
        .route("/v2/health/live", get(metadata::live))
        .route("/v2/health/ready", get(metadata::ready))
        .route("/v2/models/{model}", get(metadata::model))
        .route("/v2/models/{model}/ready", get(metadata::model_ready))
        .route("/v2/models/{model}/infer", post(infer::current))
        .route("/v2/models/{model}/versions/{version}", get(metadata::model_version))
        .route("/v2/models/{model}/versions/{version}/ready", get(metadata::model_version_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer::version))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route("/v2/repository/models/{model}/unload", post(repository::unload))
        .route("/v2/systemsharedmemory/{*rest}", shared_memory.clone())
        .route("/v2/cudasharedmemory/{*rest}", shared_memory)
        .route("/v1/embeddings", post(embeddings::create))
        .route("/v1/models", get(embeddings::models))
        .route("/v1/pipelines", get(pipelines::list))
        .route("/v1/pipelines/{pipeline}/{method}", post(pipelines::call))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(service.clone(), require_token))
        .layer(from_fn(trace))
        .with_state(service.clone())
}

/// The routes by which a service is observed. Apart from the others, since an application has pages of its own.
pub(crate) fn observe_router(service: &Service) -> Router {
    Router::new()
        .route("/metrics", get(observe::metrics))
        .route("/status", get(observe::status))
        .route("/", get(observe::page))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(service.clone(), require_token))
        .with_state(service.clone())
}

async fn unknown(method: Method, uri: Uri) -> ServeError {
    let path = uri.path().escape_debug();
    let message = format!("there is nothing at `{method} {path}`; calls are `POST /v2/models/MODEL/infer`");
    ServeError::new(ErrorKind::NotFound, message)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("`{}` does not take {method}", uri.path().escape_debug());
    let mut response = ServeError::invalid(message).into_response();
    *response.status_mut() = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    response
}

fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ServeError::failed(format!("the server failed on this request: {}", text.unwrap_or("a panic"))).into_response()
}

/// The duration that a client allows, in the header `X-Request-Timeout-Ms`.
///
/// # Errors
/// If it is not a positive number.
fn header_timeout(headers: &HeaderMap) -> Result<Option<Duration>, ServeError> {
    let Some(value) = headers.get("x-request-timeout-ms") else { return Ok(None) };
    let millis = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok()).filter(|&millis| millis > 0);
    let millis = millis.ok_or_else(|| {
        ServeError::invalid(format!("the header X-Request-Timeout-Ms is {value:?}, expected a number of milliseconds"))
    })?;
    Ok(Some(Duration::from_millis(millis)))
}
