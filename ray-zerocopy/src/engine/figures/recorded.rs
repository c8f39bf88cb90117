//! The figures of a method in the recorder of the crate `metrics`: handles that are looked up once.

use std::sync::OnceLock;

use metrics::{Counter, Histogram, Label, counter, histogram};

use super::names;
use super::outcome::{COUNT, Outcome};

/// Handles of one method and generation, in the recorder that was installed when the measurement was
/// turned on the last time.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) epoch: u64,
    pub(super) generation: &'static str,
    labels: Vec<Label>,
    outcomes: [OnceLock<Counter>; COUNT],
    pub(super) took: Histogram,
    pub(super) waited: Histogram,
    pub(super) ran: OnceLock<Histogram>,
    batches: OnceLock<Batches>,
}

#[derive(Debug)]
struct Batches {
    count: Counter,
    rows: Histogram,
    cost: Histogram,
}

impl Recorded {
    pub(super) fn new(
        epoch: u64,
        pipeline: &str,
        engine: &'static str,
        method: &'static str,
        generation: &'static str,
    ) -> Self {
        let labels = vec![
            Label::new("pipeline", pipeline.to_owned()),
            Label::from_static_parts("engine", engine),
            Label::from_static_parts("method", method),
            Label::from_static_parts("generation", generation),
        ];
        let took = histogram!(names::CALL_SECONDS, labels.clone());
        let waited = histogram!(names::QUEUE_WAIT_SECONDS, labels.clone());
        let (ran, batches) = Default::default();
        Self { epoch, generation, labels, outcomes: [const { OnceLock::new() }; COUNT], took, waited, ran, batches }
    }

    /// Counts a call that has ended. A series exists from its first call on.
    pub(super) fn ended(&self, outcome: Outcome) {
        let counter = self.outcomes[outcome as usize].get_or_init(|| {
            let mut labels = self.labels.clone();
            labels.push(Label::from_static_parts("outcome", outcome.name()));
            counter!(names::CALLS, labels)
        });
        counter.increment(1);
    }

    pub(super) fn ran(&self) -> &Histogram {
        self.ran.get_or_init(|| histogram!(names::RUN_SECONDS, self.labels.clone()))
    }

    /// Counts a batch that is sent to a worker.
    pub(super) fn batch(&self, rows: u64, cost: u64) {
        let batches = self.batches.get_or_init(|| Batches {
            count: counter!(names::BATCHES, self.labels.clone()),
            rows: histogram!(names::BATCH_ROWS, self.labels.clone()),
            cost: histogram!(names::BATCH_COST, self.labels.clone()),
        });
        batches.count.increment(1);
        batches.rows.record(rows as f64);
        batches.cost.record(cost as f64);
    }
}
