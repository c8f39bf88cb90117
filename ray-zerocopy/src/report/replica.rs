//! The copies of an arena on NUMA nodes, for a report.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::arena::memory::status::Obstacle;
use crate::error::call::Worker;
use crate::os::byte_size::mib;

/// A copy of the weights on a NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplicaReport {
    /// The node.
    pub node: u32,
    /// Whether it is the first copy.
    pub is_first: bool,
    /// Its size in bytes.
    pub bytes: u64,
    /// The nodes that its pages are on, and the bytes on each: from `/proc/<pid>/numa_maps` of the process
    /// that has mapped most of the copy, or as it was when the copy was made if that is more. Empty if the
    /// kernel does not say.
    pub pages: Vec<(u32, u64)>,
    /// The workers of the wrapper that read it. Empty in the report of an
    /// [`ActorWrapper`](crate::ActorWrapper::report), which does not know its actors.
    pub workers: Vec<Worker>,
    /// The workers that read the first copy because there is none for them, and the obstacles.
    pub without_own: Vec<(Worker, Vec<Obstacle>)>,
}

impl fmt::Display for ReplicaReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = if self.is_first { "first copy" } else { "copy" };
        write!(f, "{which}, for NUMA node {}: {} MiB", self.node, mib(self.bytes))?;
        let pages: Vec<_> = self.pages.iter().map(|(node, bytes)| format!("N{node}={} MiB", mib(*bytes))).collect();
        if pages.is_empty() {
            write!(f, ", pages unknown")?;
        } else {
            write!(f, ", pages {}", pages.join(" "))?;
        }
        let workers: Vec<_> = self.workers.iter().map(|worker| worker.index.to_string()).collect();
        match &workers[..] {
            [] => {}
            [worker] => write!(f, ", worker {worker}")?,
            workers => write!(f, ", workers {}", workers.join(", "))?,
        }
        for (worker, why) in &self.without_own {
            let why: Vec<_> = why.iter().map(ToString::to_string).collect();
            write!(f, ", worker {} ({})", worker.index, why.join("; "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ReplicaReport;
    use crate::arena::memory::status::Obstacle;
    use crate::error::call::Worker;

    #[test]
    fn line_names_the_node_the_pages_and_the_workers() {
        let workers = vec![Worker { index: 1, pid: 7 }, Worker { index: 3, pid: 8 }];
        let pages = vec![(0, 1 << 20), (1, 3 << 20)];
        let without_own = Vec::new();
        let mut copy = ReplicaReport { node: 1, is_first: false, bytes: 4 << 20, pages, workers, without_own };
        assert_eq!(copy.to_string(), "copy, for NUMA node 1: 4.0 MiB, pages N0=1.0 MiB N1=3.0 MiB, workers 1, 3");
        let without_own = vec![(Worker { index: 2, pid: 9 }, vec![Obstacle::OneNode])];
        copy = ReplicaReport { is_first: true, pages: Vec::new(), workers: Vec::new(), without_own, ..copy };
        let expected = "first copy, for NUMA node 1: 4.0 MiB, pages unknown, worker 2 (one NUMA node: one copy)";
        assert_eq!(copy.to_string(), expected);
    }
}
