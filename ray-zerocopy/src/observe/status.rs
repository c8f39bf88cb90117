//! The status of a process as data, which other programs read as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::arena::manifest::{ArenaId, HexId};
use crate::engine::figures::histogram::Times;
use crate::engine::figures::workers::WorkerCounts;
use crate::report::PoolReport;

/// The calls, workers and memory of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// Version of this format.
    pub version: u32,
    /// The names under which the process has published its status.
    pub names: Vec<String>,
    /// The process.
    pub pid: u32,
    /// The program's file name.
    pub program: String,
    /// Time in seconds since the process began to measure calls or was asked for its status.
    pub uptime_seconds: f64,
    /// The pipelines that run on an engine.
    pub models: Vec<ModelStatus>,
    /// Starts and ends of workers, by engine.
    pub workers: Vec<WorkerCounts>,
    /// Number of further pipelines, which the bounded report leaves out.
    pub left_out: usize,
}

/// A pipeline on an engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ModelStatus {
    /// The pipeline's type.
    pub pipeline: String,
    /// The engine: `local`, `threads` or `ray`.
    pub engine: String,
    /// Number of workers that have a process. Pipelines that share a pool share its workers.
    pub workers: usize,
    /// Number of workers, with those that are starting or may start.
    pub size: usize,
    /// How the pool has grown and shrunk, if it has a range of workers.
    pub pool: Option<PoolReport>,
    /// The weights, the current ones first.
    pub generations: Vec<GenerationStatus>,
    /// The processes that have the current weights.
    pub processes: Vec<ProcessStatus>,
}

/// Weights of a pipeline, and the calls that run on them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GenerationStatus {
    /// What they are to the wrapper: `current`, `canary`, `candidate` or `retired`.
    pub generation: String,
    /// Number of swaps before them.
    pub number: u64,
    /// The weights, in hexadecimal.
    #[serde(with = "hex")]
    pub arena: ArenaId,
    /// Their size in bytes.
    pub bytes: u64,
    /// The methods that have been called since the measurement began.
    pub methods: Vec<MethodStatus>,
}

/// The calls of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MethodStatus {
    /// The method.
    pub method: String,
    /// Number of calls that wait for a worker.
    pub waiting: usize,
    /// Number of calls that have been sent to a worker and have no answer yet.
    pub running: usize,
    /// Number of calls that have ended, by outcome, as in the metric `ray_zerocopy_calls_total`.
    pub outcomes: BTreeMap<String, u64>,
    /// Times from a call to its answer.
    pub took: Times,
    /// Times from a call until it was last sent to a worker.
    pub waited: Times,
    /// Times from then until its answer.
    pub ran: Times,
    /// Number of batches, including those of a single call.
    pub batches: u64,
    /// Number of calls in them.
    pub batched_calls: u64,
    /// Number of rows in them.
    pub batched_rows: u64,
}

impl MethodStatus {
    /// Number of calls that have ended.
    pub fn calls(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Number of calls that have ended without a result, with those that were cancelled.
    pub fn errors(&self) -> u64 {
        self.outcomes.iter().filter(|(outcome, _)| *outcome != "ok").map(|(_, count)| count).sum()
    }
}

/// Memory of a process that has the weights, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// `owner`, or `worker` and its index.
    pub name: String,
    /// The process id.
    pub pid: u32,
    /// The pages of the weights that it maps.
    pub shared: u64,
    /// Its private memory.
    pub private: u64,
    /// Its share of everything that it maps.
    pub pss: u64,
    /// The memory that sharing saves for it.
    pub saved: u64,
}

mod hex {
    //! Ids in hexadecimal, as other programs of this project write them.

    use super::{ArenaId, Deserialize, Deserializer, HexId, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &ArenaId, serializer: S) -> Result<S::Ok, S::Error> {
        HexId(*id).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ArenaId, D::Error> {
        HexId::deserialize(deserializer).map(|HexId(id)| id)
    }
}
