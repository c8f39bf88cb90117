//! Bearer tokens.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::error::{ErrorKind, ServeError};
use crate::rest::openai_error;
use crate::service::Service;

/// Paths that need no token, so that probes of an orchestrator work without one.
const OPEN: [&str; 5] = [
    // The page has no figures: it reads them from `/status`, with the token that the user types.
    "/",
    "/v2/health/live",
    "/v2/health/ready",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
];

/// Ends of the paths whose errors have OpenAI's form.
const OPENAI: [&str; 2] = ["/v1/embeddings", "/v1/models"];

/// The tokens of which a client needs one.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Arc<Vec<String>>);

impl Tokens {
    pub(crate) fn add(&mut self, token: String) {
        Arc::make_mut(&mut self.0).push(token);
    }

    /// Checks the header of a request. Takes as long for a wrong token as for a right one of the same length.
    fn check(&self, headers: &HeaderMap) -> Result<(), ServeError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let refused = |message: &str| Err(ServeError::new(ErrorKind::Unauthenticated, message));
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, given)) = given.and_then(|value| value.split_once(' ')) else {
            return refused("the request has no token; send the header `Authorization: Bearer TOKEN`");
        };
        let is_known = self
            .0
            .iter()
            .fold(subtle::Choice::from(0), |known, token| known | token.as_bytes().ct_eq(given.trim().as_bytes()));
        if scheme.eq_ignore_ascii_case("bearer") && bool::from(is_known) {
            return Ok(());
        }
        refused("the token of the request is not one of this server's")
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

/// Middleware that refuses requests without a token, in the form of their protocol.
pub(crate) async fn require_token(State(service): State<Service>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN.contains(&path) {
        return next.run(request).await;
    }
    let is_openai = OPENAI.iter().any(|end| path.ends_with(end));
    match service.tokens().check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) if is_grpc(request.headers()) => tonic::Status::from(error).into_http(),
        Err(error) => {
            let mut response = if is_openai { openai_error(&error) } else { error.into_response() };
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::Tokens;

    #[test]
    fn one_of_the_tokens_is_required() {
        let mut tokens = Tokens::default();
        assert!(tokens.check(&HeaderMap::new()).is_ok());
        tokens.add("first".to_owned());
        tokens.add("second".to_owned());
        let check = |value: Option<&'static str>| {
            let headers = value.map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value)));
            tokens.check(&headers.into_iter().collect())
        };
        assert!(check(Some("Bearer first")).is_ok() && check(Some("bearer second")).is_ok());
        assert!(check(None).unwrap_err().to_string().contains("Authorization: Bearer TOKEN"));
        for wrong in ["Bearer third", "Basic first", "first", "Bearer ", "Bearer firs"] {
            assert!(check(Some(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }
}
