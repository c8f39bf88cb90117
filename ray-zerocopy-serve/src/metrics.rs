//! `Metrics`: the metrics of this process for Prometheus.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use ray_zerocopy::observe::{self, METRICS};
use tracing::warn;

/// The metrics of this process in the text format of Prometheus, at `/metrics` of a [`Service`](crate::Service).
///
/// They are those of [`ray_zerocopy::observe::METRICS`], and what the program records through the crate `metrics`
/// itself. Times and sizes of batches are histograms with buckets, so that those of several machines can be added. Cheap
/// to clone.
///
/// ```no_run
/// # use ray_zerocopy_serve::{Metrics, ModelRepository, Service};
/// # fn example(models: ModelRepository) -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::builder(models).metrics(Metrics::install()?).build();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    /// Ends the upkeep when the last clone is dropped.
    _upkeep: Arc<Sender<()>>,
}

/// Interval at which what histograms have collected becomes part of their buckets. Until then each value takes memory, so
/// that a program that is never scraped would grow.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be recorded: {0}; a program has one recorder: use `Metrics::of` with your own")]
pub struct MetricsError(#[from] BuildError);

impl Metrics {
    /// Makes a recorder for Prometheus that of this process, and begins to measure.
    ///
    /// # Errors
    /// If the process has a recorder.
    pub fn install() -> Result<Self, MetricsError> {
        let mut recorder = PrometheusBuilder::new();
        for metric in METRICS.iter().filter(|metric| !metric.buckets.is_empty()) {
            recorder = recorder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric.buckets)?;
        }
        let recorder = recorder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(BuildError::FailedToSetGlobalRecorder)?;
        Ok(Self::of(handle))
    }

    /// Shows the metrics of a recorder that the program has installed, and begins to measure.
    pub fn of(handle: PrometheusHandle) -> Self {
        observe::enable();
        let (upkeep, ended) = channel();
        let collected = handle.clone();
        let thread = std::thread::Builder::new().name("ray-zerocopy metrics".to_owned()).spawn(move || {
            while ended.recv_timeout(UPKEEP) == Err(RecvTimeoutError::Timeout) {
                collected.run_upkeep();
            }
        });
        if let Err(error) = thread {
            warn!(%error, "metrics take memory until they are read: no thread could be started");
        }
        Self { handle, _upkeep: Arc::new(upkeep) }
    }

    /// The metrics now. Reads `/proc` for each process that has weights.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn render(&self) -> ray_zerocopy::Result<String> {
        observe::record_gauges()?;
        self.handle.run_upkeep();
        Ok(self.handle.render())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
