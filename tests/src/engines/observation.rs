//! Metrics: every call is counted once, however it ends.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use ray_zerocopy::observe::{GenerationStatus, METRICS, MetricKind, ModelStatus, enable, record_gauges, status};
use ray_zerocopy::{Batching, Pending, Pipeline, TaskWrapper, share};

use super::EngineUnderTest;
use super::models::{Busy, hold};
use crate::memory::eventually;
use crate::models::kill_myself;

/// The recorder of this process.
static PROMETHEUS: LazyLock<PrometheusHandle> = LazyLock::new(|| {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).expect("no other recorder is installed");
    enable();
    handle
});

/// A pipeline whose calls end in all ways. No other test uses it.
#[derive(Pipeline)]
#[pipeline(init = ObservedModel::new)]
struct ObservedModel {
    head: Linear,
}

#[ray_zerocopy::remote]
impl ObservedModel {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { head: LinearConfig::new(8, 8).init(device) }
    }

    /// Sleeps.
    pub fn sleep(&self, millis: u64) {
        std::thread::sleep(Duration::from_millis(millis));
    }

    /// Creates the file `begun`, and keeps the worker busy until the file `gate` exists.
    pub fn hold(&self, begun: String, gate: String) {
        hold(&begun, &gate);
    }

    /// Panics.
    pub fn fail(&self) {
        assert_eq!(self.head.weight.dims()[0], 0, "asked to panic");
    }

    /// Kills the worker.
    pub fn die(&self) {
        kill_myself();
    }

    /// Doubles numbers. Panics at 13.
    #[remote(batch)]
    pub fn double(&self, numbers: Vec<u32>) -> Vec<u32> {
        assert!(!numbers.contains(&13), "13 is not a number");
        numbers.into_iter().map(|number| 2 * number).collect()
    }

    /// Counts. Panics at 13.
    #[remote(stream)]
    pub fn count(&self, to: u32) -> impl Iterator<Item = u32> {
        (0..to).inspect(|number| assert_ne!(*number, 13, "13 is not a number"))
    }
}

/// The series of a metric, by their labels.
fn series(text: &str, name: &str, labels: &[(&str, &str)]) -> Vec<(BTreeMap<String, String>, f64)> {
    let parse = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        let found = series.strip_prefix(name)?.strip_prefix('{')?.strip_suffix('}')?;
        let pair =
            |pair: &str| pair.split_once('=').map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()));
        let found: BTreeMap<_, _> = found.split("\",").filter_map(pair).collect();
        let has = |(key, value): &(&str, &str)| found.get(*key).is_some_and(|known| known == value);
        Some((labels.iter().all(has), found, value.parse().ok()?))
    };
    text.lines().filter_map(parse).filter(|(is_it, ..)| *is_it).map(|(_, labels, value)| (labels, value)).collect()
}

fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    series(text, name, labels).iter().map(|(_, value)| *value as u64).sum()
}

/// The status of a wrapper: that of its pipeline, with its current weights.
fn of(tasks: &TaskWrapper<ObservedModel>) -> (ModelStatus, GenerationStatus) {
    let own = tasks.arena().id();
    let models = status().unwrap().models;
    let found = models.into_iter().find_map(|model| {
        let generation = model.generations.iter().find(|generation| generation.arena == own).cloned()?;
        Some((model, generation))
    });
    found.expect("the wrapper is part of the status")
}

pub fn outcomes_add_up_to_the_calls<E: EngineUnderTest>() {
    let prometheus = &*PROMETHEUS;
    let model = || ObservedModel::new(&Device::flex());
    let tasks = TaskWrapper::on(&E::backend(1), &model()).unwrap();
    tasks.sleep(0).wait().unwrap();
    let engine = of(&tasks).0.engine;
    let mut expected: BTreeMap<(&str, &str), u64> = BTreeMap::from([(("sleep", "ok"), 1)]);
    let mut expect = |method, outcome, calls| *expected.entry((method, outcome)).or_default() += calls;

    // Results and panics, in and without batches.
    let batched = tasks.clone().batch(Batching::default());
    let calls: Vec<_> = (0..14).map(|number| batched.double_one(number)).collect();
    let failed = calls.into_iter().filter_map(|call| call.wait().err()).count();
    assert_eq!(failed, 1, "only the bad row fails");
    expect("double", "ok", 13);
    expect("double", "panicked", 1);
    assert!(tasks.fail().wait().is_err());
    expect("fail", "panicked", 1);

    // Streams that end, that end with an error, and that are cancelled.
    assert_eq!(tasks.count(5).filter_map(Result::ok).count(), 5);
    assert!(tasks.count(20).any(|item| item.is_err()));
    expect("count", "ok", 1);
    expect("count", "panicked", 1);

    // Calls that are cancelled while they wait, and that miss their deadlines.
    let busy = Busy::with(|begun, gate| tasks.hold(begun, gate));
    let calls: Vec<_> = (0..3).map(|_| tasks.sleep(0)).collect();
    calls.iter().for_each(Pending::cancel);
    let hasty = tasks.clone().deadline(Duration::from_millis(50));
    assert!(hasty.fail().wait().is_err());
    busy.release();
    assert!(calls.into_iter().all(|call| call.wait().is_err()));
    expect("sleep", "cancelled", 3);
    expect("fail", "deadline", 1);
    expect("hold", "ok", 1);

    // A call whose arguments cannot be sent would be counted as well. One whose worker dies is.
    if E::REPLACES_WORKERS {
        assert!(tasks.clone().attempts(1).die().wait().is_err());
        expect("die", "worker_died", 1);
    }

    // Calls on other weights. Those of the swap itself are not measured.
    let canary = tasks.canary(share(&model()).unwrap(), 1.0).unwrap();
    tasks.sleep(0).wait().unwrap();
    canary.promote().unwrap();
    tasks.sleep(0).wait().unwrap();
    expect("sleep", "ok", 2);

    let text = prometheus.render();
    let pipeline = of(&tasks).0.pipeline;
    let own = [("pipeline", pipeline.as_str()), ("engine", engine.as_str())];
    for ((method, outcome), calls) in &expected {
        let labels = [own[0], own[1], ("method", *method), ("outcome", *outcome)];
        assert_eq!(sum(&text, "ray_zerocopy_calls_total", &labels), *calls, "{method} {outcome}:\n{text}");
    }
    let all: u64 = expected.values().sum();
    assert_eq!(sum(&text, "ray_zerocopy_calls_total", &own), all, "{text}");
    for histogram in ["ray_zerocopy_call_seconds_count", "ray_zerocopy_queue_wait_seconds_count"] {
        assert_eq!(sum(&text, histogram, &own), all, "{histogram}");
    }
    // Cancelled and late calls have never run. Ray does not tell when it begins a call that it has been given.
    if engine != "ray" {
        assert!(sum(&text, "ray_zerocopy_run_seconds_count", &own) <= all - 4, "{text}");
    }
    assert_eq!(sum(&text, "ray_zerocopy_batch_rows_sum", &[own[0], own[1], ("method", "double")]), 14);
    assert_eq!(sum(&text, "ray_zerocopy_swaps_total", &[own[0], own[1], ("outcome", "ok")]), 1);

    // The same figures as data: the first weights are those that were retired, if a call still has them.
    eventually("no call waits or runs", || {
        let (_, current) = of(&tasks);
        current.methods.iter().all(|method| method.waiting == 0 && method.running == 0)
    });
    let (model, current) = of(&tasks);
    assert_eq!((current.generation.as_str(), current.number), ("current", 1));
    let sleep = current.methods.iter().find(|method| method.method == "sleep").unwrap();
    assert_eq!((sleep.calls(), sleep.errors(), sleep.took.count()), (2, 0, 2));
    assert!(sleep.took.sum_nanos >= sleep.ran.sum_nanos);
    assert!(model.workers <= 1 && model.processes[0].name.starts_with("owner"));

    record_gauges().unwrap();
    let text = prometheus.render();
    let bytes = current.bytes;
    assert_eq!(sum(&text, "ray_zerocopy_arena_bytes", &[own[0], own[1], ("generation", "current")]), bytes, "{text}");
    assert_eq!(sum(&text, "ray_zerocopy_calls_waiting", &own), 0);
    assert_eq!(sum(&text, "ray_zerocopy_generation", &own), 1);
    labels_are_those_that_are_documented(&text);
}

/// Each series of this library has the labels that [`METRICS`] names, and no others.
fn labels_are_those_that_are_documented(text: &str) {
    for metric in METRICS {
        // Without the quantiles or buckets that the exporter adds.
        let endings: &[&str] = if metric.kind == MetricKind::Histogram { &["_sum", "_count"] } else { &[""] };
        let names: Vec<_> = endings.iter().map(|ending| format!("{}{ending}", metric.name)).collect();
        for (labels, _) in names.iter().flat_map(|name| series(text, name, &[])) {
            let found: Vec<_> = labels.keys().map(String::as_str).collect();
            let mut documented = metric.labels.to_vec();
            documented.sort_unstable();
            assert_eq!(found, documented, "{}", metric.name);
        }
    }
}
