//! The workers that have replied: their processes, and what they have loaded.

use std::collections::HashMap;

use crate::engine::program::Attached;
use crate::error::call::Worker;
use crate::os::sync::Mutex;
use crate::ray::wire::protocol::Origin;

/// Processes of the cluster, numbered in the order of their first reply.
#[derive(Default)]
pub(super) struct WorkerRegistry(Mutex<State>);

#[derive(Default)]
struct State {
    origins: Vec<Origin>,
    attached: HashMap<u64, Vec<(Worker, Attached)>>,
}

impl WorkerRegistry {
    /// Returns the number of a process. Assigns the next one to a new process.
    pub(super) fn worker(&self, origin: &Origin) -> Worker {
        let mut state = self.0.lock();
        let found = state.origins.iter().position(|known| known == origin);
        let index = found.unwrap_or_else(|| {
            state.origins.push(origin.clone());
            state.origins.len() - 1
        });
        Worker { index, pid: origin.pid }
    }

    /// The workers that are alive, as far as this can be determined from this machine.
    pub(super) fn workers(&self) -> Vec<Worker> {
        let here = Origin::here().host;
        let is_alive =
            |origin: &Origin| origin.host != here || std::path::Path::new(&format!("/proc/{}", origin.pid)).exists();
        let state = self.0.lock();
        let all = state.origins.iter().enumerate().filter(|(_, origin)| is_alive(origin));
        all.map(|(index, origin)| Worker { index, pid: origin.pid }).collect()
    }

    /// Returns `true` if the process is on this machine.
    pub(super) fn is_here(&self, worker: Worker) -> bool {
        let here = Origin::here();
        self.0.lock().origins.iter().any(|origin| origin.pid == worker.pid && origin.host == here.host)
    }

    pub(super) fn attached(&self, key: u64, worker: Worker, attached: Attached) {
        let mut state = self.0.lock();
        let list = state.attached.entry(key).or_default();
        list.retain(|(known, _)| *known != worker);
        list.push((worker, attached));
    }

    /// Returns the reports of the workers that have loaded a program.
    pub(super) fn all_attached(&self, key: u64) -> Vec<(Worker, Attached)> {
        self.0.lock().attached.get(&key).cloned().unwrap_or_default()
    }

    pub(super) fn forget(&self, key: u64) {
        self.0.lock().attached.remove(&key);
    }
}
