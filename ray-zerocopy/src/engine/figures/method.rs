//! The figures of one method of a program.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::append_list::AppendList;
use super::epoch;
use super::histogram::{AtomicHistogram, Times};
use super::outcome::{COUNT, Outcome};
use super::recorded::Recorded;

/// The figures of all methods of a program.
#[derive(Debug, Default)]
pub(crate) struct ProgramFigures(AppendList<MethodFigures>);

impl ProgramFigures {
    /// The figures of a method.
    pub(crate) fn of(&self, method: &'static str) -> &MethodFigures {
        // Usually the same string at the same address.
        self.0.find_or_add(|figures| figures.method == method, || MethodFigures::new(method))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &MethodFigures> {
        self.0.iter()
    }
}

/// What the metrics of a program are labelled with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Labels<'a> {
    pub(crate) pipeline: &'a str,
    pub(crate) engine: &'static str,
    pub(crate) generation: &'static str,
}

/// The figures of one method.
#[derive(Debug)]
pub(crate) struct MethodFigures {
    pub(crate) method: &'static str,
    waiting: AtomicUsize,
    running: AtomicUsize,
    outcomes: [AtomicU64; COUNT],
    took: AtomicHistogram,
    waited: AtomicHistogram,
    ran: AtomicHistogram,
    batches: AtomicU64,
    batched_calls: AtomicU64,
    batched_rows: AtomicU64,
    recorded: AppendList<Recorded>,
}

/// The end of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallEnd {
    pub(crate) outcome: Outcome,
    /// Time since the call was made.
    pub(crate) took: Duration,
    /// Time from when the call was made until it was last sent to a worker. `None` if it never was.
    pub(crate) waited: Option<Duration>,
}

/// Figures of one method as data.
#[derive(Debug, Clone)]
pub(crate) struct MethodState {
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    pub(crate) outcomes: Vec<(&'static str, u64)>,
    pub(crate) took: Times,
    pub(crate) waited: Times,
    pub(crate) ran: Times,
    pub(crate) batches: u64,
    pub(crate) batched_calls: u64,
    pub(crate) batched_rows: u64,
}

impl MethodFigures {
    fn new(method: &'static str) -> Self {
        let (waiting, running, took, waited, ran) = Default::default();
        let (batches, batched_calls, batched_rows, recorded) = Default::default();
        let outcomes = [const { AtomicU64::new(0) }; COUNT];
        Self { method, waiting, running, outcomes, took, waited, ran, batches, batched_calls, batched_rows, recorded }
    }

    /// Records that a call is made.
    pub(crate) fn made(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that a call is sent to a worker for the first time.
    pub(crate) fn begun(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Records that a call has its answer.
    pub(crate) fn ended(&self, labels: Labels<'_>, CallEnd { outcome, took, waited }: CallEnd) {
        let place = if waited.is_some() { &self.running } else { &self.waiting };
        place.fetch_sub(1, Ordering::Relaxed);
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        let recorded = self.recorded(labels);
        recorded.ended(outcome);
        self.took.record(took);
        recorded.took.record(took);
        let (waited, ran) = (waited.unwrap_or(took), waited.map(|waited| took.saturating_sub(waited)));
        self.waited.record(waited);
        recorded.waited.record(waited);
        if let Some(ran) = ran {
            self.ran.record(ran);
            recorded.ran().record(ran);
        }
    }

    /// Records a batch that is sent to a worker.
    pub(crate) fn batch(&self, labels: Labels<'_>, calls: u64, rows: u64, cost: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.batched_calls.fetch_add(calls, Ordering::Relaxed);
        self.batched_rows.fetch_add(rows, Ordering::Relaxed);
        self.recorded(labels).batch(rows, cost);
    }

    fn recorded(&self, Labels { pipeline, engine, generation }: Labels<'_>) -> &Recorded {
        let epoch = epoch();
        let is_it = |recorded: &Recorded| recorded.epoch == epoch && recorded.generation == generation;
        self.recorded.find_or_add(is_it, || Recorded::new(epoch, pipeline, engine, self.method, generation))
    }

    pub(crate) fn read(&self) -> MethodState {
        let outcomes = Outcome::ALL.iter().zip(&self.outcomes);
        let outcomes = outcomes.map(|(outcome, count)| (outcome.name(), count.load(Ordering::Relaxed)));
        MethodState {
            waiting: self.waiting.load(Ordering::Relaxed),
            running: self.running.load(Ordering::Relaxed),
            outcomes: outcomes.filter(|(_, count)| *count > 0).collect(),
            took: self.took.read(),
            waited: self.waited.read(),
            ran: self.ran.read(),
            batches: self.batches.load(Ordering::Relaxed),
            batched_calls: self.batched_calls.load(Ordering::Relaxed),
            batched_rows: self.batched_rows.load(Ordering::Relaxed),
        }
    }
}
