//! Memory policies that can be requested for an arena.

use serde::{Deserialize, Serialize};

/// How the kernel should treat the memory of an arena. By default, no policy is requested.
///
/// Policies are best effort: a refusal of the kernel is not an error, but is reported in the
/// [`MemoryStatus`](crate::memory::MemoryStatus) with its reason. A policy never changes the bytes
/// that are read.
///
/// | | benefit | cost |
/// | --- | --- | --- |
/// | [`huge_pages`](Self::huge_pages) | fewer TLB misses when weights are read in any order, and fewer page faults | CPU time, once; free memory in blocks of 2 MiB |
/// | [`prefault`](Self::prefault) | the first calls do not wait for page faults | time before the worker takes its first call |
/// | [`lock`](Self::lock) | weights are never swapped out | memory that other processes cannot use, and a limit to raise |
/// | [`replicas`](Self::replicas) | workers read weights from the memory that is next to their cores | the memory of one more copy for each further NUMA node |
///
/// ```
/// use ray_zerocopy::memory::{HugePages, MemoryPolicy};
///
/// let memory = MemoryPolicy::default().huge_pages(HugePages::Background).prefault(true);
/// assert!(!memory.lock);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MemoryPolicy {
    /// Whether and when huge pages are created.
    pub huge_pages: HugePages,
    /// Whether every page is mapped in advance.
    pub prefault: bool,
    /// Whether pages are locked in memory.
    pub lock: bool,
    /// How many copies of the arena there are.
    #[serde(default)]
    pub replicas: Replicas,
}

/// Whether and when the small pages of an arena are replaced by huge ones of 2 MiB.
///
/// The process that shared the pipeline does this once. From then on every process that maps the
/// arena has huge pages: those that start later, and those that are reading at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum HugePages {
    /// Never. The default.
    #[default]
    Off,
    /// In a background thread, which ends when the arena is dropped.
    Background,
    /// Before the call returns that requests it.
    Now,
}

/// How many copies of an arena there are on a machine with several NUMA nodes.
///
/// A NUMA node is a group of cores with memory next to them, usually a socket. Cores read the memory of
/// another node at a fraction of the speed. On a machine with one node nothing is copied, and the
/// [`MemoryStatus`](crate::memory::MemoryStatus) says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Replicas {
    /// One, wherever its pages are. The default.
    #[default]
    One,
    /// One on each node that workers run on. The process that shared the pipeline makes them, and each worker
    /// is bound to the cores of one node, and reads the copy there.
    ///
    /// Workers get the nodes in turns. A worker that the settings of its pool limit to certain cores stays
    /// there. If these belong to several nodes, it reads the first copy.
    PerNumaNode,
}

impl MemoryPolicy {
    /// Sets whether and when huge pages are created. Default: [`HugePages::Off`].
    #[must_use]
    pub fn huge_pages(mut self, huge_pages: HugePages) -> Self {
        self.huge_pages = huge_pages;
        self
    }

    /// Maps every page of the arena in advance, instead of each when it is first read
    /// (`MADV_POPULATE_READ`, Linux 5.14). Default: no.
    #[must_use]
    pub fn prefault(mut self, prefault: bool) -> Self {
        self.prefault = prefault;
        self
    }

    /// Locks the arena in memory (`mlock`), so that it is never swapped out. Every process needs a
    /// limit of locked memory (`ulimit -l`) of at least the size of the arena. Default: no.
    #[must_use]
    pub fn lock(mut self, lock: bool) -> Self {
        self.lock = lock;
        self
    }

    /// Sets how many copies of the arena there are. Default: [`Replicas::One`].
    ///
    /// Only wrappers make replicas, for their workers: processes and threads of this machine. They have
    /// no effect on a Ray cluster, whose object store has the weights once.
    #[must_use]
    pub fn replicas(mut self, replicas: Replicas) -> Self {
        self.replicas = replicas;
        self
    }

    /// Combines two policies. The later one decides when huge pages are created.
    pub(super) fn and(self, later: Self) -> Self {
        let huge_pages = if later.huge_pages == HugePages::Off { self.huge_pages } else { later.huge_pages };
        let replicas = if later.replicas == Replicas::One { self.replicas } else { later.replicas };
        Self { huge_pages, prefault: self.prefault || later.prefault, lock: self.lock || later.lock, replicas }
    }

    /// Returns the part that is applied once for all processes.
    pub(crate) fn once(self) -> Self {
        Self { prefault: false, lock: false, ..self }
    }
}
