//! Replicas: a copy of an arena on each NUMA node, made by the owner for the workers of the node.
//!
//! The first copy is the arena itself, whose pages move to one of the nodes. A replica has the same bytes and
//! the same id. It copies everything that the arena consists of, so that of a variant also has a copy of its
//! base.

use std::cmp::Reverse;

use super::arena::Arena;
use super::memory::policy::{MemoryPolicy, Replicas};
use super::memory::status::{MemoryStatus, Obstacle, PolicyStatus};
use crate::os::numa::NumaNode;
use crate::os::numa_maps::BytesByNode;
use crate::os::sync::Mutex;
use crate::os::sys::node_memory::ExistingPages;

/// The replicas of an arena. They are dropped with it.
#[derive(Default)]
pub(super) struct ReplicaSet {
    /// Held while replicas are made.
    making: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Empty, or the first copy and the others.
    copies: Vec<NodeCopy>,
    /// Why there is only one copy.
    why: Vec<Obstacle>,
}

/// The copy of a node.
#[derive(Clone)]
struct NodeCopy {
    node: u32,
    memory: CopyMemory,
    /// Where its pages were when it was made. `None` if the kernel does not say.
    pages: Option<BytesByNode>,
    /// What the kernel refused.
    why: Vec<Obstacle>,
}

#[derive(Clone)]
enum CopyMemory {
    /// The arena itself.
    First,
    Replica(Arena),
    /// It could not be made.
    Missing,
}

/// A copy of an arena, for a report.
pub(crate) struct Replica {
    pub(crate) node: u32,
    pub(crate) arena: Arena,
    pub(crate) is_first: bool,
    /// Where its pages were when it was made. `None` if the kernel does not say.
    pub(crate) pages: Option<BytesByNode>,
}

impl Arena {
    /// Makes a copy on each of the nodes that has none, and moves the first copy to one of them. For one node,
    /// or none, does nothing. The status says what could not be done.
    pub(crate) fn replicate(&self, nodes: Result<&[NumaNode], String>, memory: MemoryPolicy) {
        let set = &self.0.replicas;
        let _one_at_a_time = set.making.lock();
        self.0.memory.ask_for_replicas();
        if self.0.memory.is_stored() {
            return;
        }
        let mut copies = set.state.lock().copies.clone();
        let nodes = match (nodes, self.files().next()) {
            (_, Some(_)) => Err(Obstacle::InFile),
            (Err(reason), None) => Err(Obstacle::UnknownNodes { reason }),
            (Ok([] | [_]), None) if copies.is_empty() => Err(Obstacle::OneNode),
            (Ok(nodes), None) => Ok(nodes),
        };
        let nodes = match nodes {
            Ok(nodes) => nodes,
            Err(why) => {
                set.state.lock().why = vec![why];
                return;
            }
        };
        crate::os::fork::adopt();
        // Those that could not be made are tried again.
        copies.retain(|copy| !matches!(copy.memory, CopyMemory::Missing));
        if copies.is_empty() {
            copies.push(self.move_first(nodes));
        }
        for node in nodes {
            if copies.iter().all(|copy| copy.node != node.id) {
                copies.push(self.copy_to(node, memory));
            }
        }
        let before = std::mem::replace(&mut *set.state.lock(), State { copies, why: Vec::new() });
        drop(before);
    }

    /// Moves the pages of the arena to the node that has most of them.
    fn move_first(&self, nodes: &[NumaNode]) -> NodeCopy {
        let regions = self.regions();
        let pages = sum(regions.iter().map(|region| region.bytes_by_node().ok()));
        let on = |node: &NumaNode| pages.as_ref().and_then(|pages| pages.get(&node.id).copied()).unwrap_or_default();
        let home = nodes.iter().max_by_key(|node| (on(node), Reverse(node.id))).map_or(0, |node| node.id);
        let mut why = Vec::new();
        for pages in regions.iter().filter_map(|region| region.pages.as_ref()) {
            if let Err(error) = pages.prefer_node(home, ExistingPages::Move) {
                why = vec![Obstacle::refused("mbind", &error)];
            }
        }
        let pages = sum(regions.iter().map(|region| region.mapped_by_node().ok()));
        let asked = self.0.memory.asked();
        if !asked.prefault && !asked.lock {
            regions.iter().for_each(|region| region.unmap());
        }
        NodeCopy { node: home, memory: CopyMemory::First, pages, why }
    }

    /// Makes the copy of a node.
    fn copy_to(&self, node: &NumaNode, memory: MemoryPolicy) -> NodeCopy {
        let regions: Result<Vec<_>, _> = self.regions().iter().map(|region| region.on_node(node)).collect();
        let missing = |why| NodeCopy { node: node.id, memory: CopyMemory::Missing, pages: None, why };
        let regions = match regions {
            Ok(regions) => regions,
            Err(why) => return missing(why),
        };
        let pages = sum(regions.iter().map(|copy| copy.pages.clone()));
        match Self::from_regions(regions.into_iter().map(|copy| copy.region).collect()) {
            Ok(arena) => {
                arena.apply_policy(MemoryPolicy { replicas: Replicas::One, ..memory.once() });
                NodeCopy { node: node.id, memory: CopyMemory::Replica(arena), pages, why: Vec::new() }
            }
            Err(error) => missing(vec![Obstacle::NotCopied { node: node.id, reason: error.to_string() }]),
        }
    }

    /// Returns the copy of a node.
    ///
    /// # Errors
    /// Why a worker of that node has to read the first copy.
    pub(crate) fn on_node(&self, node: u32) -> Result<Self, Vec<Obstacle>> {
        let state = self.0.replicas.state.lock();
        let none = || if state.why.is_empty() { vec![Obstacle::NoWorkers] } else { state.why.clone() };
        let copy = state.copies.iter().find(|copy| copy.node == node).ok_or_else(none)?;
        match &copy.memory {
            CopyMemory::First => Ok(self.clone()),
            CopyMemory::Replica(arena) => Ok(arena.clone()),
            CopyMemory::Missing => Err(copy.why.clone()),
        }
    }

    /// Returns the copies, the first one first. Returns none if there is only one copy.
    pub(crate) fn replicas(&self) -> Vec<Replica> {
        let state = self.0.replicas.state.lock();
        let replica = |copy: &NodeCopy| {
            let (arena, is_first) = match &copy.memory {
                CopyMemory::First => (self.clone(), true),
                CopyMemory::Replica(arena) => (arena.clone(), false),
                CopyMemory::Missing => return None,
            };
            Some(Replica { node: copy.node, arena, is_first, pages: copy.pages.clone() })
        };
        state.copies.iter().filter_map(replica).collect()
    }

    /// Adds the status of the replicas to that of the other policies, if they were requested.
    pub(super) fn with_replicas(&self, mut status: MemoryStatus) -> MemoryStatus {
        if self.0.memory.asked().replicas == Replicas::PerNumaNode && !self.0.memory.is_stored() {
            status.replicas = self.0.replicas.status(self.mapped_bytes());
        }
        status
    }

    /// The bytes of all regions: what one copy takes.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        self.regions().iter().map(|region| region.memory.len() as u64).sum()
    }
}

impl ReplicaSet {
    /// How much of the copies is on their nodes. `each` is the size of one.
    fn status(&self, each: u64) -> PolicyStatus {
        let state = self.state.lock();
        if state.copies.is_empty() {
            let why = if state.why.is_empty() { vec![Obstacle::NoWorkers] } else { state.why.clone() };
            return PolicyStatus::NotApplied { of: 0, why };
        }
        let (mut bytes, mut why) = (0, Vec::new());
        for copy in &state.copies {
            let there = match (&copy.memory, &copy.pages) {
                (CopyMemory::Missing, _) => 0,
                (_, Some(pages)) => pages.get(&copy.node).copied().unwrap_or_default().min(each),
                (_, None) => each,
            };
            bytes += there;
            why.extend(copy.why.iter().cloned());
            if there < each && copy.why.is_empty() {
                why.push(Obstacle::OtherNode { node: copy.node, bytes: each - there });
            }
        }
        PolicyStatus::new(Ok(bytes), each * state.copies.len() as u64, why)
    }
}

/// Adds up the pages of regions. `None` if those of one are not known.
fn sum(regions: impl Iterator<Item = Option<BytesByNode>>) -> Option<BytesByNode> {
    let mut sum = BytesByNode::new();
    for pages in regions {
        for (node, bytes) in pages? {
            *sum.entry(node).or_default() += bytes;
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::super::memory::policy::{MemoryPolicy, Replicas};
    use super::super::memory::status::{Obstacle, PolicyStatus};
    use super::{BytesByNode, CopyMemory, NodeCopy, ReplicaSet, State};
    use crate::arena::builder::ArenaBuilder;
    use crate::os::numa::NumaNode;
    use crate::os::sync::Mutex;

    const REPLICAS: MemoryPolicy = MemoryPolicy {
        huge_pages: super::super::memory::policy::HugePages::Off,
        prefault: false,
        lock: false,
        replicas: Replicas::PerNumaNode,
    };

    fn node(id: u32) -> NumaNode {
        NumaNode { id, cores: vec![0] }
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn one_node_makes_no_copy() {
        let arena = ArenaBuilder::new("test").seal(&mut |_| ()).unwrap();
        arena.apply_policy(REPLICAS);
        let why = |arena: &crate::Arena| arena.memory_status().replicas.why().to_vec();
        assert_eq!(why(&arena), [Obstacle::NoWorkers]);
        for nodes in [&[][..], &[node(0)]] {
            arena.replicate(Ok(nodes), REPLICAS);
            assert_eq!(why(&arena), [Obstacle::OneNode]);
        }
        assert!(arena.memory_status().to_string().contains("one NUMA node: one copy"));
        arena.replicate(Err("broken".to_owned()), REPLICAS);
        assert_eq!(arena.on_node(0).unwrap_err(), [Obstacle::UnknownNodes { reason: "broken".to_owned() }]);
        assert!(arena.replicas().is_empty());
    }

    /// The second node does not exist, so that the kernel refuses it.
    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn copy_that_is_refused_leaves_the_first_one() {
        let arena = ArenaBuilder::new("test").seal(&mut |_| ()).unwrap();
        arena.apply_policy(REPLICAS);
        let nodes = [node(0), node(1000)];
        arena.replicate(Ok(&nodes), REPLICAS);
        assert_eq!(arena.on_node(0).unwrap().id(), arena.id());
        let why = arena.on_node(1000).unwrap_err();
        assert!(matches!(&why[..], [Obstacle::Refused { call, .. }] if call == "mbind"), "{why:?}");
        let status = arena.memory_status().replicas;
        assert!(matches!(&status, PolicyStatus::Partial { .. }), "{status}");
        assert_eq!((status.why(), arena.replicas().len()), (&why[..], 1));
        arena.verify().unwrap();
    }

    #[test]
    fn status_counts_what_is_on_its_node() {
        let copy = |node, memory, pages: &[(u32, u64)], why: Vec<Obstacle>| NodeCopy {
            node,
            memory,
            pages: Some(BytesByNode::from_iter(pages.iter().copied())),
            why,
        };
        let full = vec![Obstacle::NoRoom { node: 2, needed: 100, available: 7 }];
        let copies = vec![
            copy(0, CopyMemory::First, &[(0, 128)], Vec::new()),
            copy(1, CopyMemory::First, &[(0, 40), (1, 60)], Vec::new()),
            copy(2, CopyMemory::Missing, &[], full.clone()),
        ];
        let set = ReplicaSet { state: Mutex::new(State { copies, why: Vec::new() }), ..ReplicaSet::default() };
        let mut why = vec![Obstacle::OtherNode { node: 1, bytes: 40 }];
        why.extend(full);
        assert_eq!(set.status(100), PolicyStatus::Partial { bytes: 160, of: 300, why });
    }
}
