//! Logs and traces of the server and its workers, and the span of a request.
//!
//! | file | what |
//! | --- | --- |
//! | `subscriber` | logs to standard error and spans over OTLP, in this process and its workers |
//! | `otlp` | the export of spans |
//! | `request` | the span of a request, its parent, and what goes back to the client |

#[cfg(feature = "otlp")]
mod otlp;
pub(crate) mod request;
mod subscriber;

pub use self::subscriber::{LogFormat, Tracing, TracingError, TracingGuard};
