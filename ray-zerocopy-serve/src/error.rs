//! `ServeError`: why a request has no result, as HTTP and gRPC clients see it.

use std::time::Duration;

use ray_zerocopy::jit::ReplayError;
use ray_zerocopy::{CallError, Error};

/// Time after which a client may try again if the server is busy, draining or loading.
const RETRY: Duration = Duration::from_secs(1);

/// The class of an error, which determines the status codes of HTTP and gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong: 400, `INVALID_ARGUMENT`.
    Invalid,
    /// The token is missing or wrong: 401, `UNAUTHENTICATED`.
    Unauthenticated,
    /// There is no such model, version or method: 404, `NOT_FOUND`.
    NotFound,
    /// The client did not send its request in time: 408, `CANCELLED`.
    Slow,
    /// The request is larger than the limit: 413, `RESOURCE_EXHAUSTED`.
    TooLarge,
    /// The method of a pipeline returned an error: 422, `FAILED_PRECONDITION`.
    Method,
    /// The queue is full, by calls or by bytes: 429, `RESOURCE_EXHAUSTED`.
    Busy,
    /// The call was cancelled: 499, `CANCELLED`.
    Cancelled,
    /// The model failed: 500, `INTERNAL`.
    Failed,
    /// The server does not have this part of the protocol: 501, `UNIMPLEMENTED`.
    Unsupported,
    /// The model is not loaded, or the server is draining: 503, `UNAVAILABLE`.
    Unavailable,
    /// The deadline of the request has passed: 504, `DEADLINE_EXCEEDED`.
    Deadline,
}

impl ErrorKind {
    /// The HTTP status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::NotFound => 404,
            Self::Slow => 408,
            Self::TooLarge => 413,
            Self::Method => 422,
            Self::Busy => 429,
            Self::Cancelled => 499,
            Self::Failed => 500,
            Self::Unsupported => 501,
            Self::Unavailable => 503,
            Self::Deadline => 504,
        }
    }
}

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServeError {
    kind: ErrorKind,
    message: String,
}

impl ServeError {
    /// Creates an error with a message for the client.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn failed(message: impl ToString) -> Self {
        Self::new(ErrorKind::Failed, message.to_string())
    }

    pub(crate) fn deadline(after: Duration) -> Self {
        let message = format!("the request passed its deadline of {after:?} and was cancelled; send a longer timeout");
        Self::new(ErrorKind::Deadline, message)
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Time after which the client may try again, if that can help.
    pub fn retry_after(&self) -> Option<Duration> {
        matches!(self.kind, ErrorKind::Busy | ErrorKind::Unavailable).then_some(RETRY)
    }
}

impl From<Error> for ServeError {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Call(error) => call_kind(error),
            _ => ErrorKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

fn call_kind(error: &CallError) -> ErrorKind {
    use ray_zerocopy::error::CallPart;
    match error {
        CallError::QueueFull { .. } => ErrorKind::Busy,
        CallError::Deadline { .. } => ErrorKind::Deadline,
        CallError::Cancelled { .. } => ErrorKind::Cancelled,
        CallError::ShutDown { .. } | CallError::Start(_) | CallError::Load { .. } => ErrorKind::Unavailable,
        CallError::Graph {
            error:
                ReplayError::Inputs { .. }
                | ReplayError::Input { .. }
                | ReplayError::Sizes { .. }
                | ReplayError::Method { .. },
            ..
        } => ErrorKind::Invalid,
        CallError::Wire { part: CallPart::Arguments, .. } => ErrorKind::Invalid,
        _ => ErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, ServeError};
    use ray_zerocopy::{CallError, Error};

    #[test]
    fn full_queue_is_an_error_with_a_retry() {
        let error = ServeError::from(Error::from(CallError::QueueFull { waiting: 8, workers: 2 }));
        assert_eq!((error.kind(), error.kind().status()), (ErrorKind::Busy, 429));
        assert!(error.retry_after().is_some());
        let error = ServeError::from(Error::from(CallError::ShutDown { method: "run".to_owned() }));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(ServeError::invalid("x").retry_after(), None);
    }
}
