//! The copies of an arena on NUMA nodes, for a report.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::call::Worker;
use crate::os::byte_size::mib;

/// A copy of the weights on a NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReplicaReport {
    /// The node.
    pub node: u32,
    /// Whether it is the first copy. A worker reads that one if it has none on its own node.
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
            [] => Ok(()),
            [worker] => write!(f, ", worker {worker}"),
            workers => write!(f, ", workers {}", workers.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ReplicaReport;
    use crate::error::call::Worker;

    #[test]
    fn line_names_the_node_the_pages_and_the_workers() {
        let workers = vec![Worker { index: 1, pid: 7 }, Worker { index: 3, pid: 8 }];
        let pages = vec![(0, 1 << 20), (1, 3 << 20)];
        let mut copy = ReplicaReport { node: 1, is_first: false, bytes: 4 << 20, pages, workers };
        assert_eq!(copy.to_string(), "copy, for NUMA node 1: 4.0 MiB, pages N0=1.0 MiB N1=3.0 MiB, workers 1, 3");
        copy = ReplicaReport { is_first: true, pages: Vec::new(), workers: Vec::new(), ..copy };
        assert_eq!(copy.to_string(), "first copy, for NUMA node 1: 4.0 MiB, pages unknown");
    }
}
