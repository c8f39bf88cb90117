//! Metrics, the status of this process, and the page that shows it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse};
use ray_zerocopy::observe::{self, Status};
use tokio::task::spawn_blocking;

use crate::error::{ErrorKind, ServeError};
use crate::service::Service;

/// The page, which reads `status` again and again.
const PAGE: &str = include_str!("status.html");
/// The page loads nothing but itself and the status.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

/// `GET /`.
pub(super) async fn page() -> ([(HeaderName, &'static str); 1], Html<&'static str>) {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
}

/// `GET /status`.
pub(super) async fn status() -> Result<Json<Status>, ServeError> {
    // It reads `/proc`.
    let status = spawn_blocking(observe::status).await.map_err(ServeError::failed)?;
    Ok(Json(status.map_err(ServeError::failed)?))
}

/// `GET /metrics`.
pub(super) async fn metrics(State(service): State<Service>) -> Result<impl IntoResponse, ServeError> {
    let Some(metrics) = service.metrics().cloned() else {
        let message = "this server records no metrics; `Service::builder(..).metrics(..)` does";
        return Err(ServeError::new(ErrorKind::NotFound, message));
    };
    let text = spawn_blocking(move || metrics.render()).await.map_err(ServeError::failed)??;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
}
