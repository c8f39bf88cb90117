//! Server, health and models.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::error::{ErrorKind, ServeError};
use crate::repository::{ModelInfo, TensorPort};
use crate::service::Service;

/// Name of the server in the protocol.
pub(crate) const NAME: &str = "ray-zerocopy";
/// Extensions of the protocol.
pub(crate) const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "model_repository"];

/// `GET /v2`.
pub(super) async fn server() -> Json<Value> {
    Json(json!({ "name": NAME, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS }))
}

/// `GET /v2/health/live`.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// `GET /v2/health/ready`.
pub(super) async fn ready(State(service): State<Service>) -> (StatusCode, Json<Value>) {
    let ready = service.is_ready();
    (status(ready), Json(json!({ "ready": ready })))
}

fn status(is_ready: bool) -> StatusCode {
    if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// `GET /v2/models/{model}`.
pub(super) async fn model(
    State(service): State<Service>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ServeError> {
    describe(&service, &model, "")
}

/// `GET /v2/models/{model}/versions/{version}`.
pub(super) async fn model_version(
    State(service): State<Service>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Json<Value>, ServeError> {
    describe(&service, &model, &version)
}

/// `GET /v2/models/{model}/ready`.
pub(super) async fn model_ready(
    State(service): State<Service>,
    Path(model): Path<String>,
) -> Result<Json<Value>, ServeError> {
    readiness(&service, &model, "")
}

/// `GET /v2/models/{model}/versions/{version}/ready`.
pub(super) async fn model_version_ready(
    State(service): State<Service>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Json<Value>, ServeError> {
    readiness(&service, &model, &version)
}

fn readiness(service: &Service, model: &str, version: &str) -> Result<Json<Value>, ServeError> {
    service.models().info(model, version)?;
    Ok(Json(json!({ "name": model, "ready": true })))
}

fn describe(service: &Service, model: &str, version: &str) -> Result<Json<Value>, ServeError> {
    let (info, version) = service.models().info(model, version)?;
    let ModelInfo { platform, inputs, outputs } = &*info;
    let ports = |ports: &[TensorPort]| {
        let port = |port: &TensorPort| json!({ "name": port.name, "datatype": port.datatype, "shape": port.shape });
        ports.iter().map(port).collect::<Vec<_>>()
    };
    Ok(Json(json!({
        "name": model,
        "versions": [version.to_string()],
        "platform": platform,
        "inputs": ports(inputs),
        "outputs": ports(outputs),
    })))
}

/// The error of the calls for shared memory.
pub(crate) fn no_shared_memory() -> ServeError {
    let message = "this server does not open shared memory of clients; send tensors as binary data";
    ServeError::new(ErrorKind::Unsupported, message)
}

/// `/v2/systemsharedmemory/…` and `/v2/cudasharedmemory/…`.
pub(super) async fn shared_memory() -> ServeError {
    no_shared_memory()
}
