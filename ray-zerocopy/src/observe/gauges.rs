//! Records gauges in the recorder of the crate `metrics`: what changes without a call.

use std::collections::{BTreeMap, BTreeSet};

use metrics::{Label, gauge};

use super::status::{ModelStatus, Status};
use crate::engine::figures::names;
use crate::error::report::ReportError;
use crate::os::per_process::PerProcess;
use crate::os::sync::Mutex;

/// A name, and the labels with their values.
type Series = (&'static str, Vec<(&'static str, String)>);

/// The series that were recorded last. A worker that has ended leaves one, which becomes 0.
static RECORDED: PerProcess<Mutex<BTreeSet<Series>>> = PerProcess::new();

/// Records queue depths, numbers of workers, and memory in the recorder of the crate `metrics`. Call it
/// before the metrics are read: for Prometheus, at each scrape. Reads `/proc` for each process that has the
/// weights.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn record_gauges() -> Result<(), ReportError> {
    let values = values(&super::status()?);
    let recorded = RECORDED.get();
    let mut before = recorded.lock();
    for (name, labels) in before.iter().filter(|series| !values.contains_key(*series)) {
        gauge!(*name, own(labels)).set(0.0);
    }
    for ((name, labels), value) in &values {
        gauge!(*name, own(labels)).set(*value);
    }
    *before = values.into_keys().collect();
    Ok(())
}

fn own(labels: &[(&'static str, String)]) -> Vec<Label> {
    labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect()
}

/// The value of each series. Values of equal labels are added.
fn values(status: &Status) -> BTreeMap<Series, f64> {
    let mut values = BTreeMap::new();
    for model in &status.models {
        let mut set = |name, label: Option<(&'static str, &str)>, value: f64| {
            let mut labels = vec![("pipeline", model.pipeline.clone()), ("engine", model.engine.clone())];
            labels.extend(label.map(|(name, value)| (name, value.to_owned())));
            *values.entry((name, labels)).or_insert(0.0) += value;
        };
        of_model(model, &mut set);
    }
    values
}

fn of_model(model: &ModelStatus, set: &mut impl FnMut(&'static str, Option<(&'static str, &str)>, f64)) {
    set(names::WORKERS, None, model.workers as f64);
    let newest = model.generations.iter().map(|generation| generation.number).max();
    set(names::GENERATION, None, newest.unwrap_or_default() as f64);
    for generation in &model.generations {
        set(names::ARENA_BYTES, Some(("generation", &generation.generation)), generation.bytes as f64);
        for method in &generation.methods {
            set(names::WAITING, Some(("method", &method.method)), method.waiting as f64);
            set(names::RUNNING, Some(("method", &method.method)), method.running as f64);
        }
    }
    for process in &model.processes {
        let label = Some(("process", process.name.as_str()));
        set(names::SHARED_BYTES, label, process.shared as f64);
        set(names::PRIVATE_BYTES, label, process.private as f64);
        set(names::SAVED_BYTES, label, process.saved as f64);
    }
}
