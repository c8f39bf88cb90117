//! Starts and ends of workers, by engine.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::counter;
use serde::{Deserialize, Serialize};

use super::names;

/// The engines, in the order of [`COUNTS`].
const ENGINES: [&str; 3] = ["local", "threads", "ray"];

/// Counts of one engine.
struct Counts {
    started: AtomicU64,
    restarted: AtomicU64,
    ended: AtomicU64,
    died: AtomicU64,
}

impl Counts {
    const fn new() -> Self {
        let [started, restarted, ended, died] = [const { AtomicU64::new(0) }; 4];
        Self { started, restarted, ended, died }
    }
}

static COUNTS: [Counts; ENGINES.len()] = [const { Counts::new() }; ENGINES.len()];

/// Starts and ends of the workers of an engine in this process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WorkerCounts {
    /// The engine: `local`, `threads` or `ray`.
    pub engine: String,
    /// How many workers have been started.
    pub started: u64,
    /// How many of them replaced another one.
    pub restarted: u64,
    /// How many have ended because they were told to.
    pub ended: u64,
    /// How many have ended otherwise.
    pub died: u64,
}

/// Records the start of a worker.
pub(crate) fn started(engine: &'static str, is_restart: bool) {
    if let Some(counts) = counts(engine) {
        counts.started.fetch_add(1, Ordering::Relaxed);
        counts.restarted.fetch_add(is_restart.into(), Ordering::Relaxed);
    }
    if super::is_on() {
        counter!(names::WORKER_STARTS, "engine" => engine).increment(1);
        if is_restart {
            counter!(names::WORKER_RESTARTS, "engine" => engine).increment(1);
        }
    }
}

/// Records the end of a worker, which was told to or not.
pub(crate) fn ended(engine: &'static str, is_expected: bool) {
    if let Some(counts) = counts(engine) {
        let count = if is_expected { &counts.ended } else { &counts.died };
        count.fetch_add(1, Ordering::Relaxed);
    }
    if super::is_on() {
        let reason = if is_expected { "ended" } else { "died" };
        counter!(names::WORKER_EXITS, "engine" => engine, "reason" => reason).increment(1);
    }
}

fn counts(engine: &str) -> Option<&'static Counts> {
    ENGINES.iter().position(|known| *known == engine).map(|at| &COUNTS[at])
}

/// The counts of each engine that has had a worker.
pub(crate) fn read() -> Vec<WorkerCounts> {
    let all = ENGINES.iter().zip(&COUNTS).map(|(engine, counts)| WorkerCounts {
        engine: (*engine).to_owned(),
        started: counts.started.load(Ordering::Relaxed),
        restarted: counts.restarted.load(Ordering::Relaxed),
        ended: counts.ended.load(Ordering::Relaxed),
        died: counts.died.load(Ordering::Relaxed),
    });
    all.filter(|counts| counts.started > 0).collect()
}
