//! `Metrics`: the metrics of this process for Prometheus.

use std::fmt;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use ray_zerocopy::observe::{self, METRICS};

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
pub struct Metrics(PrometheusHandle);

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
        Self(handle)
    }

    /// The metrics now. Reads `/proc` for each process that has weights.
    ///
    /// # Errors
    /// If `/proc` cannot be read.
    pub fn render(&self) -> ray_zerocopy::Result<String> {
        observe::record_gauges()?;
        // What a histogram has collected since the last time becomes part of its buckets.
        self.0.run_upkeep();
        Ok(self.0.render())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
