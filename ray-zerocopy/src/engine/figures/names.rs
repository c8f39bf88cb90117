//! Names, units and help texts of all metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

pub(crate) const CALLS: &str = "ray_zerocopy_calls_total";
pub(crate) const CALL_SECONDS: &str = "ray_zerocopy_call_seconds";
pub(crate) const QUEUE_WAIT_SECONDS: &str = "ray_zerocopy_queue_wait_seconds";
pub(crate) const RUN_SECONDS: &str = "ray_zerocopy_run_seconds";
pub(crate) const BATCHES: &str = "ray_zerocopy_batches_total";
pub(crate) const BATCH_ROWS: &str = "ray_zerocopy_batch_rows";
pub(crate) const BATCH_COST: &str = "ray_zerocopy_batch_cost";
pub(crate) const WAITING: &str = "ray_zerocopy_calls_waiting";
pub(crate) const RUNNING: &str = "ray_zerocopy_calls_running";
pub(crate) const WORKERS: &str = "ray_zerocopy_workers";
pub(crate) const WORKER_STARTS: &str = "ray_zerocopy_worker_starts_total";
pub(crate) const WORKER_RESTARTS: &str = "ray_zerocopy_worker_restarts_total";
pub(crate) const WORKER_EXITS: &str = "ray_zerocopy_worker_exits_total";
pub(crate) const SWAPS: &str = "ray_zerocopy_swaps_total";
pub(crate) const GENERATION: &str = "ray_zerocopy_generation";
pub(crate) const ARENA_BYTES: &str = "ray_zerocopy_arena_bytes";
pub(crate) const SHARED_BYTES: &str = "ray_zerocopy_shared_bytes";
pub(crate) const PRIVATE_BYTES: &str = "ray_zerocopy_private_bytes";
pub(crate) const SAVED_BYTES: &str = "ray_zerocopy_saved_bytes";

/// Kind of a metric, as Prometheus names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that changes.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// A metric that the library records.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it counts or measures.
    pub help: &'static str,
    /// Upper bounds of buckets that suit a histogram. None for other kinds.
    pub buckets: &'static [f64],
    unit: Unit,
}

/// From a small call on this machine to a batch that takes a minute.
const SECONDS: &[f64] = &[
    0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0, 60.0,
];
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0];

const OF_CALL: &[&str] = &["pipeline", "engine", "method", "generation"];
const OF_METHOD: &[&str] = &["pipeline", "engine", "method"];
const OF_MODEL: &[&str] = &["pipeline", "engine"];
const OF_GENERATION: &[&str] = &["pipeline", "engine", "generation"];
const OF_PROCESS: &[&str] = &["pipeline", "engine", "process"];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, help, buckets: &[], unit: Unit::Count }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, help, buckets: &[], unit }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], unit: Unit, help: &'static str) -> Metric {
    let buckets = if matches!(unit, Unit::Seconds) { SECONDS } else { SIZES };
    Metric { name, kind: MetricKind::Histogram, labels, help, buckets, unit }
}

/// All metrics that the library records.
pub const METRICS: &[Metric] = &[
    counter(
        CALLS,
        &["pipeline", "engine", "method", "generation", "outcome"],
        "Calls that have ended, by outcome: ok, cancelled, deadline, shed (the queue was full), or the kind of their error.",
    ),
    histogram(CALL_SECONDS, OF_CALL, Unit::Seconds, "Time from a call to its answer."),
    histogram(
        QUEUE_WAIT_SECONDS,
        OF_CALL,
        Unit::Seconds,
        "Time from a call until it was last sent to a worker, or until its answer if it never was.",
    ),
    histogram(
        RUN_SECONDS,
        OF_CALL,
        Unit::Seconds,
        "Time from when a call was last sent to a worker until its answer. Calls that were never sent have none.",
    ),
    counter(BATCHES, OF_CALL, "Batches that were sent to workers, including those of a single call."),
    histogram(BATCH_ROWS, OF_CALL, Unit::Count, "Rows of a batch."),
    histogram(BATCH_COST, OF_CALL, Unit::Count, "Cost of a batch: its rows, times the cost of the most expensive one."),
    gauge(WAITING, OF_METHOD, Unit::Count, "Calls that wait for a worker."),
    gauge(RUNNING, OF_METHOD, Unit::Count, "Calls that have been sent to a worker and have no answer yet."),
    gauge(WORKERS, OF_MODEL, Unit::Count, "Workers that have a process."),
    counter(WORKER_STARTS, &["engine"], "Workers that have been started."),
    counter(WORKER_RESTARTS, &["engine"], "Workers that have been started in place of another one."),
    counter(
        WORKER_EXITS,
        &["engine", "reason"],
        "Workers that have ended, because they were told to (ended) or not (died).",
    ),
    counter(SWAPS, &["pipeline", "engine", "outcome"], "Swaps of weights: ok, or refused."),
    gauge(GENERATION, OF_MODEL, Unit::Count, "Number of swaps after which the current weights came."),
    gauge(ARENA_BYTES, OF_GENERATION, Unit::Bytes, "Size of the weights, which exist once."),
    gauge(SHARED_BYTES, OF_PROCESS, Unit::Bytes, "The pages of the weights that a process maps: Rss of the arena."),
    gauge(PRIVATE_BYTES, OF_PROCESS, Unit::Bytes, "Private memory of a process: Anonymous."),
    gauge(
        SAVED_BYTES,
        OF_PROCESS,
        Unit::Bytes,
        "Memory that sharing saves for a process: Rss of the arena, less its Pss.",
    ),
];

/// Describes all metrics to the recorder.
pub(crate) fn describe() {
    for &Metric { name, kind, unit, help, .. } in METRICS {
        match kind {
            MetricKind::Counter => describe_counter!(name, unit, help),
            MetricKind::Gauge => describe_gauge!(name, unit, help),
            MetricKind::Histogram => describe_histogram!(name, unit, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{METRICS, MetricKind};

    #[test]
    fn names_follow_prometheus() {
        for metric in METRICS {
            assert!(metric.name.starts_with("ray_zerocopy_"), "{metric:?}");
            assert!(metric.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{metric:?}");
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{metric:?}");
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == metrics::Unit::Seconds, "{metric:?}");
            assert_eq!(metric.name.ends_with("_bytes"), metric.unit == metrics::Unit::Bytes, "{metric:?}");
            assert!(metric.help.ends_with('.'), "{metric:?}");
        }
    }
}
