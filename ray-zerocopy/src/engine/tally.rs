//! How the calls of a program have ended: counted where a caller gets its answer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use metrics::counter;

use super::figures::is_on;
use super::figures::method::{CallEnd, Labels, ProgramFigures};
use super::figures::names;
use super::figures::outcome::Outcome;

/// Numbers of calls that have ended, and the figures of each method.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ended: AtomicU64,
    errors: AtomicU64,
    /// Pipeline and engine, once they are known.
    names: OnceLock<(String, &'static str)>,
    generation: AtomicU8,
    /// Number of swaps before these weights.
    number: AtomicU64,
    pub(crate) methods: ProgramFigures,
}

/// What the weights of a program are to their wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Generation {
    /// New calls run on them.
    Current,
    /// They get a share of the calls.
    Canary,
    /// They are being checked, or were refused.
    Candidate,
    /// Calls that were made before a swap run on them.
    Retired,
}

impl Generation {
    const ALL: [Self; 4] = [Self::Current, Self::Canary, Self::Candidate, Self::Retired];

    /// Its value of the label `generation`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Canary => "canary",
            Self::Candidate => "candidate",
            Self::Retired => "retired",
        }
    }
}

impl Tally {
    /// Counts a call that has ended.
    pub(super) fn add(&self, is_error: bool) {
        if is_error {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
        self.ended.fetch_add(1, Ordering::Release);
    }

    /// Begins to count, after a check of the program.
    pub(crate) fn reset(&self) {
        self.ended.store(0, Ordering::Relaxed);
        self.errors.store(0, Ordering::Relaxed);
    }

    /// Returns the number of calls that have ended, and how many of them with an error.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let ended = self.ended.load(Ordering::Acquire);
        (ended, self.errors.load(Ordering::Relaxed).min(ended))
    }

    /// Sets what metrics are labelled with.
    pub(crate) fn name(&self, pipeline: &str, engine: &'static str) {
        self.names.get_or_init(|| (pipeline.to_owned(), engine));
    }

    /// Sets what the weights are to their wrapper.
    pub(crate) fn set_generation(&self, generation: Generation) {
        self.generation.store(generation as u8, Ordering::Relaxed);
    }

    pub(crate) fn generation(&self) -> Generation {
        Generation::ALL[usize::from(self.generation.load(Ordering::Relaxed))]
    }

    pub(crate) fn set_number(&self, number: u64) {
        self.number.store(number, Ordering::Relaxed);
    }

    /// Number of swaps before these weights.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    pub(crate) fn labels(&self) -> Labels<'_> {
        let (pipeline, engine) = self.names.get().map_or(("", ""), |(pipeline, engine)| (pipeline, *engine));
        Labels { pipeline, engine, generation: self.generation().name() }
    }

    /// Records the end of a call of a method that was made at `made`, and was sent to a worker at `begun`
    /// after that.
    pub(crate) fn call_ended(&self, method: &'static str, outcome: Outcome, made: Instant, begun: Option<Duration>) {
        let took = made.elapsed();
        let waited = begun.map(|begun| begun.min(took));
        self.methods.of(method).ended(self.labels(), CallEnd { outcome, took, waited });
    }

    /// Records the end of a swap from or to these weights.
    pub(crate) fn swap_ended(&self, is_ok: bool) {
        if is_on() {
            let Labels { pipeline, engine, .. } = self.labels();
            let outcome = if is_ok { "ok" } else { "refused" };
            counter!(names::SWAPS, "pipeline" => pipeline.to_owned(), "engine" => engine, "outcome" => outcome)
                .increment(1);
        }
    }

    /// Records a batch that is sent to a worker.
    pub(crate) fn batch(&self, method: &'static str, calls: usize, rows: usize, cost: usize) {
        if is_on() {
            self.methods.of(method).batch(self.labels(), calls as u64, rows as u64, cost as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Generation, Tally};

    #[test]
    fn generations_are_numbered_in_their_order() {
        let tally = Tally::default();
        assert_eq!(tally.generation(), Generation::Current);
        for generation in Generation::ALL {
            tally.set_generation(generation);
            assert_eq!(tally.generation(), generation);
        }
    }
}
