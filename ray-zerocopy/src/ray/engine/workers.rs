//! The workers that have answered: who they are, and what they have loaded.

use std::collections::HashMap;
use std::sync::Mutex;

use super::lock;
use crate::engine::program::Attached;
use crate::error::call::Worker;
use crate::ray::wire::protocol::Origin;

/// Processes of the cluster by number, in the order in which they were first heard of.
#[derive(Default)]
pub(super) struct WorkerRegistry(Mutex<State>);

#[derive(Default)]
struct State {
    origins: Vec<Origin>,
    attached: HashMap<u64, Vec<(Worker, Attached)>>,
}

impl WorkerRegistry {
    /// The number of a process.
    pub(super) fn worker(&self, origin: &Origin) -> Worker {
        let mut state = lock(&self.0);
        let found = state.origins.iter().position(|known| known == origin);
        let index = found.unwrap_or_else(|| {
            state.origins.push(origin.clone());
            state.origins.len() - 1
        });
        Worker { index, pid: origin.pid }
    }

    /// Those that are there, as far as can be told from this machine.
    pub(super) fn workers(&self) -> Vec<Worker> {
        let here = Origin::here().host;
        let there =
            |origin: &Origin| origin.host != here || std::path::Path::new(&format!("/proc/{}", origin.pid)).exists();
        let state = lock(&self.0);
        let all = state.origins.iter().enumerate().filter(|(_, origin)| there(origin));
        all.map(|(index, origin)| Worker { index, pid: origin.pid }).collect()
    }

    /// Whether a process is on this machine.
    pub(super) fn is_here(&self, worker: Worker) -> bool {
        let here = Origin::here();
        lock(&self.0).origins.iter().any(|origin| origin.pid == worker.pid && origin.host == here.host)
    }

    pub(super) fn attached(&self, key: u64, worker: Worker, attached: Attached) {
        let mut state = lock(&self.0);
        let list = state.attached.entry(key).or_default();
        list.retain(|(known, _)| *known != worker);
        list.push((worker, attached));
    }

    /// What they said when they loaded a program.
    pub(super) fn all_attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        lock(&self.0).attached.get(&key).cloned().unwrap_or_default()
    }

    pub(super) fn forget(&self, key: u64) {
        lock(&self.0).attached.remove(&key);
    }
}
