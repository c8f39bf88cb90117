//! `Tracing`: logs to standard error and spans over OTLP, in this process and its workers.

use std::any::Any;
use std::fmt;
use std::io::IsTerminal;

use ray_zerocopy::observe::{WorkerSetUpError, set_worker_set_up};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{EnvFilter, FromEnvError, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Form of the lines of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object on each line.
    Json,
}

/// Logs to standard error and spans over OTLP, in this process and in the workers that start after
/// [`install`](Self::install).
///
/// The environment variable `RUST_LOG` selects what is logged, as in `info,my_model=debug`. Default: `info`. What a
/// method logs with the crate `tracing` has the fields of the span `method`: worker, call, model and method. What it
/// prints goes to standard error as it is.
///
/// ```no_run
/// use ray_zerocopy_serve::{LogFormat, Tracing};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// ray_zerocopy::init();
/// let _guard = Tracing::new("speech").log(LogFormat::Json).install()?;
/// // Start the workers, and serve.
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tracing {
    service: String,
    log: Option<LogFormat>,
    otlp: Option<String>,
}

/// Why logs or spans cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TracingError {
    /// The program has a subscriber of its own.
    #[error("this program has a subscriber of `tracing` already: {0}")]
    Installed(#[from] TryInitError),
    /// `RUST_LOG` cannot be read.
    #[error("RUST_LOG selects nothing: {0}; expected a level or targets, as in `info,my_model=debug`")]
    Filter(#[from] FromEnvError),
    /// The settings cannot be sent to workers.
    #[error("the settings cannot be written as JSON: {0}")]
    Settings(serde_json::Error),
    /// The workers cannot be told.
    #[error(transparent)]
    Workers(#[from] WorkerSetUpError),
    /// Spans cannot be exported.
    #[error("spans cannot be exported to `{endpoint}`: {reason}")]
    Export {
        /// The address of the collector.
        endpoint: String,
        /// What went wrong, and what to do.
        reason: String,
    },
}

/// Keeps the export of spans. Dropping it sends those that are left.
#[must_use = "dropping it ends the export of spans"]
pub struct TracingGuard {
    #[cfg(feature = "otlp")]
    _exporter: Option<super::otlp::Exporter>,
}

impl Tracing {
    /// Neither logs nor exports. The name of the service is part of all exported spans.
    pub fn new(service: impl Into<String>) -> Self {
        Self { service: service.into(), log: None, otlp: None }
    }

    /// Logs to standard error.
    #[must_use]
    pub fn log(self, format: LogFormat) -> Self {
        Self { log: Some(format), ..self }
    }

    /// Exports spans to a collector, over OTLP with gRPC: `http://localhost:4317`, or `https://` with TLS and the
    /// authorities of the system. Each process sends its own.
    #[cfg(feature = "otlp")]
    #[must_use]
    pub fn otlp(self, endpoint: impl Into<String>) -> Self {
        Self { otlp: Some(endpoint.into()), ..self }
    }

    /// Installs a subscriber in this process, and in all workers that start from now on. Returns what has to be kept
    /// until the program ends.
    ///
    /// # Errors
    /// If the program has a subscriber, `RUST_LOG` is not valid, or the address of the collector is not.
    pub fn install(self) -> Result<TracingGuard, TracingError> {
        let guard = self.install_here()?;
        if self.log.is_some() || self.otlp.is_some() {
            set_worker_set_up(set_up, serde_json::to_string(&self).map_err(TracingError::Settings)?)?;
        }
        Ok(guard)
    }

    fn install_here(&self) -> Result<TracingGuard, TracingError> {
        let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
        if let Some(format) = self.log {
            layers.push(log_layer(format)?);
        }
        #[cfg(feature = "otlp")]
        let exporter = match &self.otlp {
            Some(endpoint) => {
                let (exporter, layer) = super::otlp::start(endpoint, &self.service)?;
                layers.push(layer);
                Some(exporter)
            }
            None => None,
        };
        if !layers.is_empty() {
            tracing_subscriber::registry().with(layers).try_init()?;
        }
        Ok(TracingGuard {
            #[cfg(feature = "otlp")]
            _exporter: exporter,
        })
    }
}

fn log_layer(format: LogFormat) -> Result<Box<dyn Layer<Registry> + Send + Sync>, TracingError> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env()?;
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    Ok(match format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
    })
}

/// Installs the same in a worker.
fn set_up(argument: String) -> Box<dyn Any> {
    let installed = serde_json::from_str::<Tracing>(&argument).map_err(|error| error.to_string());
    match installed.and_then(|tracing| tracing.install_here().map_err(|error| error.to_string())) {
        Ok(guard) => Box::new(guard),
        Err(error) => {
            // The worker serves all the same.
            eprintln!("ray-zerocopy worker {}: neither logs nor spans: {error}", std::process::id());
            Box::new(())
        }
    }
}

impl fmt::Debug for TracingGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracingGuard").finish_non_exhaustive()
    }
}
