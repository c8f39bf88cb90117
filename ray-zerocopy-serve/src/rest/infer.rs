//! Calls of models.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::request::{self, InferRequest};
use super::response::{self, HEADER_LENGTH};
use super::{body, header_timeout};
use crate::error::ServeError;
use crate::repository::Inference;
use crate::service::Service;

/// Bytes of JSON above which it is parsed and written on a thread of its own, so that other requests do not wait.
const LARGE: usize = 256 << 10;

/// `POST /v2/models/{model}/infer`.
pub(super) async fn current(
    State(service): State<Service>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServeError> {
    run(&service, model, String::new(), &headers, body).await
}

/// `POST /v2/models/{model}/versions/{version}/infer`.
pub(super) async fn version(
    State(service): State<Service>,
    Path((model, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServeError> {
    run(&service, model, version, &headers, body).await
}

async fn run(
    service: &Service,
    model: String,
    version: String,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ServeError> {
    let mut permit = service.admission().enter()?;
    service.models().info(&model, &version)?;
    let header = header_length(headers)?;
    let timeout = header_timeout(headers)?;
    let body = body::receive(service, &mut permit, headers, body, header.unwrap_or(0)).await?;
    let is_large = header.unwrap_or(body.len()) > LARGE;
    let mut request = on_thread(is_large, move || request::parse(&body, header)).await?;
    let asked = timeout.or(request.timeout);
    let limit = service.admission().limits().timeout_of(asked);
    let inputs = std::mem::take(&mut request.inputs);
    let inference = service.models().infer(&model, &version, inputs, Some(limit)).await?;
    let is_large = json_bytes(&request, &inference) > LARGE;
    on_thread(is_large, move || response::make(&model, &request, &inference)).await
}

/// Runs a function here, or on a thread on which it may take long.
async fn on_thread<T: Send + 'static>(
    is_long: bool,
    function: impl FnOnce() -> Result<T, ServeError> + Send + 'static,
) -> Result<T, ServeError> {
    if !is_long {
        return function();
    }
    tokio::task::spawn_blocking(function).await.map_err(ServeError::failed)?
}

/// The size of the outputs that are written as JSON, in memory.
fn json_bytes(request: &InferRequest, inference: &Inference) -> usize {
    let is_binary = |name: &str| {
        let wanted = request.outputs.iter().find(|output| output.name == name);
        wanted.map_or(request.is_binary, |output| output.is_binary)
    };
    let json = inference.outputs.iter().filter(|(name, _)| !is_binary(name));
    json.map(|(_, value)| value.shape().iter().product::<usize>() * value.dtype().size()).sum()
}

/// The length of the JSON of a request with binary tensors.
fn header_length(headers: &HeaderMap) -> Result<Option<usize>, ServeError> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    value.to_str().ok().and_then(|text| text.trim().parse().ok()).map(Some).ok_or_else(|| {
        ServeError::invalid(format!(
            "the header Inference-Header-Content-Length is {value:?}, expected a number of bytes"
        ))
    })
}
