//! Methods of pipelines: JSON, and server-sent events for streams.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::{Value, json};
use tokio::time::Sleep;

use super::{body, header_timeout};
use crate::admission::Permit;
use crate::error::{ErrorKind, ServeError};
use crate::methods::{Call, Method};
use crate::service::Service;

/// Interval of comments in a stream without items, by which a client that has gone away is noticed.
const ALIVE: Duration = Duration::from_secs(10);

/// `GET /v1/pipelines`.
pub(super) async fn list(State(service): State<Service>) -> Json<Value> {
    let pipelines = service.pipelines().map(|methods| {
        let described: Vec<_> = methods.calls.values().map(|method| &method.description).collect();
        json!({ "name": methods.pipeline, "methods": described })
    });
    Json(json!({ "pipelines": pipelines.collect::<Vec<_>>() }))
}

/// `POST /v1/pipelines/{pipeline}/{method}`.
pub(super) async fn call(
    State(service): State<Service>,
    Path((pipeline, method)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ServeError> {
    let mut permit = service.admission().enter()?;
    let method = find(&service, &pipeline, &method)?;
    let asked = header_timeout(&headers)?;
    let body = body::receive(&service, &mut permit, &headers, body, 0).await?;
    match (method.call)(&body)? {
        Call::Value(value) => {
            let limit = service.admission().limits().timeout_of(asked);
            let value = tokio::time::timeout(limit, value).await.map_err(|_| ServeError::deadline(limit))??;
            Ok(([(header::CONTENT_TYPE, "application/json")], value).into_response())
        }
        Call::Items(items) => {
            let deadline = asked.map(|after| (Box::pin(tokio::time::sleep(after)), after));
            let events = Events { items, deadline, is_finished: false, _permit: permit };
            Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
        }
    }
}

fn find<'a>(service: &'a Service, pipeline: &str, method: &str) -> Result<&'a Method, ServeError> {
    let unknown = |what: &str, name: &str, known: Vec<&str>| {
        let known = if known.is_empty() { "none".to_owned() } else { format!("`{}`", known.join("`, `")) };
        let message = format!("there is no {what} `{}`; there is {known}", name.escape_debug());
        ServeError::new(ErrorKind::NotFound, message)
    };
    let Some(methods) = service.pipelines().find(|methods| methods.pipeline == pipeline) else {
        let known = service.pipelines().map(|methods| methods.pipeline.as_str()).collect();
        return Err(unknown("pipeline", pipeline, known));
    };
    let known = || methods.calls.keys().map(String::as_str).collect();
    methods.calls.get(method).ok_or_else(|| unknown("method", method, known()))
}

/// The items of a call as events: `data` for each, then an event `end`, or an event `error`.
struct Events {
    items: Pin<Box<dyn Stream<Item = Result<String, ServeError>> + Send>>,
    deadline: Option<(Pin<Box<Sleep>>, Duration)>,
    is_finished: bool,
    _permit: Permit,
}

impl Stream for Events {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_finished {
            return Poll::Ready(None);
        }
        let late =
            self.deadline.as_mut().and_then(|(sleep, after)| sleep.as_mut().poll(context).is_ready().then_some(*after));
        let item = match late {
            Some(after) => Some(Err(ServeError::deadline(after))),
            None => std::task::ready!(self.items.as_mut().poll_next(context)),
        };
        self.is_finished = !matches!(item, Some(Ok(_)));
        Poll::Ready(Some(Ok(match item {
            Some(Ok(json)) => Event::default().data(json),
            Some(Err(error)) => Event::default().event("error").data(json!({ "error": error.to_string() }).to_string()),
            None => Event::default().event("end").data("null"),
        })))
    }
}
