//! OpenAI's embeddings: texts to vectors.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::Instrument;

use super::reply::with_retry;
use super::{body, header_timeout};
use crate::error::{ErrorKind, ServeError};
use crate::repository::embedder::{Tokens, vectors};
use crate::service::Service;

/// Most texts of one request, as OpenAI's service has it.
const MOST: usize = 2048;
/// Texts that one call of the model takes.
const TOGETHER: usize = 32;

#[derive(Deserialize)]
struct Request {
    model: String,
    input: Input,
    #[serde(default)]
    encoding_format: Encoding,
    #[serde(default)]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Input {
    One(String),
    Many(Vec<String>),
    Other(IgnoredAny),
}

#[derive(Default, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

#[derive(Serialize)]
struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    /// The little-endian bytes of the numbers.
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// `POST /v1/embeddings`.
pub(super) async fn create(State(service): State<Service>, headers: HeaderMap, body: Body) -> Response {
    match embed(&service, &headers, body).await {
        Ok(json) => Json(json).into_response(),
        Err(error) => failed(&error),
    }
}

async fn embed(service: &Service, headers: &HeaderMap, body: Body) -> Result<Embeddings, ServeError> {
    let mut permit = service.admission().enter()?;
    let timeout = service.admission().limits().timeout_of(header_timeout(headers)?);
    let body = body::receive(service, &mut permit, headers, body, 0).await?;
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| ServeError::invalid(format!("the request is not one for embeddings: {error}")))?;
    let texts = match request.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
        Input::Other(_) => {
            return Err(ServeError::invalid("`input` is a text or a list of texts; lists of tokens are not supported"));
        }
    };
    if texts.is_empty() || texts.len() > MOST {
        return Err(ServeError::invalid(format!("`input` has {} texts, expected 1 to {MOST}", texts.len())));
    }
    let deadline = tokio::time::timeout(timeout, all(service, &request.model, texts));
    let (vectors, tokens) = deadline.await.map_err(|_| ServeError::deadline(timeout))??;
    if let (Some(asked), Some(found)) = (request.dimensions, vectors.first().map(Vec::len))
        && asked != found
    {
        return Err(ServeError::invalid(format!(
            "`dimensions` is {asked}, and the vectors of this model have {found}"
        )));
    }
    let data = vectors.into_iter().enumerate().map(|(index, vector)| {
        let embedding = match request.encoding_format {
            Encoding::Float => Vector::Numbers(vector),
            Encoding::Base64 => Vector::Base64(BASE64_STANDARD.encode(bytemuck::cast_slice::<f32, u8>(&vector))),
        };
        Embedding { object: "embedding", index, embedding }
    });
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(Embeddings { object: "list", data: data.collect(), model: request.model, usage })
}

/// Embeds texts in calls that run side by side.
async fn all(service: &Service, model: &str, texts: Vec<String>) -> Result<(Vec<Vec<f32>>, usize), ServeError> {
    let entry = service.models().ready(model)?;
    let current = entry.current_version("")?;
    let Some(embedder) = current.embedder.clone() else {
        let message = format!(
            "the model `{model}` has no tokenizer, so it does not embed texts; start the server with one for it"
        );
        return Err(ServeError::new(ErrorKind::Unsupported, message));
    };
    let mut calls = tokio::task::JoinSet::new();
    for (place, part) in texts.chunks(TOGETHER).enumerate() {
        let (embedder, part) = (embedder.clone(), part.to_vec());
        let (models, model) = (service.models().clone(), model.to_owned());
        let embed = async move {
            let rows = part.len();
            let is_short = rows == 1 && part[0].len() < 1 << 12;
            let Tokens { inputs, count } = if is_short {
                embedder.tokens(part)?
            } else {
                tokio::task::spawn_blocking(move || embedder.tokens(part)).await.map_err(ServeError::failed)??
            };
            let inference = models.infer(&model, "", inputs, None).await?;
            Ok::<_, ServeError>((place, vectors(&inference.outputs, rows)?, count))
        };
        calls.spawn(embed.in_current_span());
    }
    let (mut parts, mut tokens) = (Vec::new(), 0);
    // Dropping the set, after an error or a deadline, cancels the other calls.
    while let Some(joined) = calls.join_next().await {
        let (place, vectors, count) = joined.map_err(ServeError::failed)??;
        parts.push((place, vectors));
        tokens += count;
    }
    parts.sort_unstable_by_key(|(place, _)| *place);
    Ok((parts.into_iter().flat_map(|(_, vectors)| vectors).collect(), tokens))
}

/// `GET /v1/models`.
pub(super) async fn models(State(service): State<Service>) -> Json<Value> {
    let ready = service.models().index().into_iter().filter(|entry| entry.version.is_some());
    let models =
        ready.map(|entry| json!({ "id": entry.name, "object": "model", "created": 0, "owned_by": "ray-zerocopy" }));
    Json(json!({ "object": "list", "data": models.collect::<Vec<_>>() }))
}

/// An error in OpenAI's form.
pub(crate) fn failed(error: &ServeError) -> Response {
    let status = StatusCode::from_u16(error.kind().status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if status.is_client_error() { "invalid_request_error" } else { "server_error" };
    let body = json!({ "error": { "message": error.to_string(), "type": kind, "param": null, "code": null } });
    with_retry(error, (status, Json(body)).into_response())
}
