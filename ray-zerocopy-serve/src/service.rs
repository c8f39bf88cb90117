//! `Service`: what is served, with the limits of calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::admission::{Admission, Limits};
use crate::auth::Tokens;
use crate::methods::Methods;
use crate::metrics::Metrics;
use crate::repository::ModelRepository;

/// What is served: models, methods of pipelines, and limits. Cheap to clone.
///
/// [`router`](Self::router) makes an axum router of it for an application of yours, and [`Server`](crate::Server)
/// serves it by itself.
///
/// ```no_run
/// use ray_zerocopy_serve::{Limits, ModelRepository, Service};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let models = ModelRepository::builder().workers(4).start()?;
/// models.add_file("minilm", "minilm.rzg")?;
/// let service = Service::builder(models).limits(Limits::default().calls(256)).build();
///
/// let app = axum::Router::new().nest("/ml", service.router()); // POST /ml/v2/models/minilm/infer
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
/// axum::serve(listener, app).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    models: ModelRepository,
    admission: Admission,
    tokens: Tokens,
    metrics: Option<Metrics>,
    pipelines: Vec<Methods>,
}

/// Builder of a [`Service`].
#[derive(Debug)]
pub struct ServiceBuilder {
    models: ModelRepository,
    limits: Limits,
    tokens: Tokens,
    metrics: Option<Metrics>,
    pipelines: Vec<Methods>,
}

impl Service {
    /// Creates a builder for a service of these models.
    pub fn builder(models: ModelRepository) -> ServiceBuilder {
        let (limits, tokens) = (Limits::default(), Tokens::default());
        ServiceBuilder { models, limits, tokens, metrics: None, pipelines: Vec::new() }
    }

    /// The models.
    pub fn models(&self) -> &ModelRepository {
        &self.0.models
    }

    /// The routes of KServe v2 and OpenAI, to be merged into an application, or nested under a path of it.
    pub fn router(&self) -> axum::Router {
        crate::rest::router(self)
    }

    /// Metrics at `/metrics` if there are [any](ServiceBuilder::metrics), the status of this process at `/status`, and a
    /// page that shows it at `/`. In an application with a page of its own, nest them under a path. [`Server`](crate::Server)
    /// has them.
    pub fn observe_router(&self) -> axum::Router {
        crate::rest::observe_router(self)
    }

    /// The routes of the KServe v2 protocol over gRPC. They need HTTP/2, and may be merged with the others.
    pub fn grpc_router(&self) -> axum::Router {
        crate::grpc::router(self)
    }

    /// Returns `true` if the service takes calls: it is not draining, and no model is being loaded for the first time.
    pub fn is_ready(&self) -> bool {
        !self.0.admission.is_draining() && self.0.models.is_settled()
    }

    /// Number of calls that wait or run.
    pub fn in_flight(&self) -> usize {
        self.0.admission.in_flight()
    }

    /// Makes the service not ready, so that load balancers send no more calls. Those that arrive are still run.
    pub fn start_draining(&self) {
        self.0.admission.drain();
    }

    /// Refuses further calls, and waits until those in flight have ended, but not longer than `timeout`. Returns
    /// the number of those that are left.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.0.admission.close();
        // Whether it timed out is told by the number of calls.
        let _ = tokio::time::timeout(timeout, self.0.admission.idle()).await;
        self.in_flight()
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub(crate) fn metrics(&self) -> Option<&Metrics> {
        self.0.metrics.as_ref()
    }

    pub(crate) fn pipelines(&self) -> impl Iterator<Item = &Methods> {
        self.0.pipelines.iter()
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }
}

impl ServiceBuilder {
    /// Sets the limits of calls.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Requires one of the bearer tokens that were given, in the header `Authorization: Bearer …`, for all requests but
    /// those of liveness and readiness. Default: none is required.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.tokens.add(token.into());
        self
    }

    /// Serves metrics at `/metrics`. Default: none.
    #[must_use]
    pub fn metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Adds methods of a pipeline. Those of a pipeline with the same name take the place of earlier ones.
    #[must_use]
    pub fn methods(mut self, methods: Methods) -> Self {
        self.pipelines.retain(|known| known.pipeline != methods.pipeline);
        self.pipelines.push(methods);
        self
    }

    /// Makes the service.
    pub fn build(self) -> Service {
        let Self { models, limits, tokens, metrics, pipelines } = self;
        Service(Arc::new(Inner { models, admission: Admission::new(limits), tokens, metrics, pipelines }))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("models", &self.0.models).finish_non_exhaustive()
    }
}
