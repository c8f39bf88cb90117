//! Index, load and unload.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{ErrorKind, ServeError};
use crate::repository::{LoadOutcome, ModelRepository, ModelState};
use crate::service::Service;

#[derive(Default, Deserialize)]
struct IndexRequest {
    #[serde(default)]
    ready: bool,
}

#[derive(Default, Deserialize)]
struct LoadRequest {
    #[serde(default)]
    parameters: Map<String, Value>,
}

/// The body of a request, or why it could not be received.
type Received = Result<Bytes, BytesRejection>;

/// Parses a body, which may be empty.
fn parse<T: Default + for<'de> Deserialize<'de>>(body: Received) -> Result<T, ServeError> {
    let body = body.map_err(|error| ServeError::invalid(format!("the body cannot be received: {error}")))?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| ServeError::invalid(format!("the request is not valid JSON: {error}")))
}

/// `POST /v2/repository/index`.
pub(super) async fn index(State(service): State<Service>, body: Received) -> Result<Json<Value>, ServeError> {
    let IndexRequest { ready } = parse(body)?;
    let models = service.models().index().into_iter().filter(|entry| !ready || entry.state == ModelState::Ready);
    let models = models.map(|entry| {
        let version = entry.version.map(|version| version.to_string()).unwrap_or_default();
        json!({ "name": entry.name, "version": version, "state": entry.state.name(), "reason": entry.reason })
    });
    Ok(Json(models.collect()))
}

/// `POST /v2/repository/models/{model}/load`.
pub(super) async fn load(
    State(service): State<Service>,
    Path(model): Path<String>,
    body: Received,
) -> Result<Json<Value>, ServeError> {
    let LoadRequest { parameters } = parse(body)?;
    refuse_parameters(parameters.keys().map(String::as_str))?;
    let outcome = load_in_background(service.models().clone(), model).await?;
    Ok(Json(match outcome {
        LoadOutcome::Loaded => json!({ "outcome": "loaded" }),
        LoadOutcome::Swapped { version } => json!({ "outcome": "swapped", "version": version.to_string() }),
        LoadOutcome::Unchanged => json!({ "outcome": "unchanged" }),
    }))
}

/// The error of the parameters with which Triton's clients send a model's configuration or files.
///
/// # Errors
/// If there is one.
pub(crate) fn refuse_parameters<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), ServeError> {
    let Some(name) = names.next() else { return Ok(()) };
    let name = name.escape_debug();
    let message = format!("the parameter `{name}` of a load is not supported: models are files in the server's folder");
    Err(ServeError::new(ErrorKind::Unsupported, message))
}

/// Loads a model on a thread that may block. The load goes on if the client goes away.
pub(crate) async fn load_in_background(models: ModelRepository, model: String) -> Result<LoadOutcome, ServeError> {
    tokio::task::spawn_blocking(move || models.load(&model)).await.map_err(ServeError::failed)?
}

/// `POST /v2/repository/models/{model}/unload`.
pub(super) async fn unload(
    State(service): State<Service>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ServeError> {
    unload_in_background(service.models().clone(), model).await?;
    Ok(Json(json!({})))
}

/// Unloads a model on a thread that may block.
pub(crate) async fn unload_in_background(models: ModelRepository, model: String) -> Result<(), ServeError> {
    tokio::task::spawn_blocking(move || models.unload(&model)).await.map_err(ServeError::failed)?
}
