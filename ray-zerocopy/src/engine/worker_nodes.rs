//! The NUMA node of each worker of a pool, for programs whose weights have a copy on each node.
//!
//! A worker is bound to its node when it loads such a program, and stays bound: each other program that it
//! loads has the same node.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::program::Program;
use super::served::{LoadedProgram, load_program};
use super::settings::{Cores, Settings};
use super::sys::entry::FnToken;
use crate::arena::arena::Arena;
use crate::arena::memory::policy::{MemoryPolicy, Replicas};
use crate::arena::memory::status::{MemoryStatus, Obstacle, PolicyStatus};
use crate::error::load::LoadError;
use crate::os::cpu_placement::allowed_cores;
use crate::os::numa::{NumaNode, nodes};

/// Where the workers of a pool run.
#[derive(Debug)]
pub(crate) struct WorkerNodes {
    /// The cores of the thread that started the pool.
    allowed: Vec<usize>,
    /// The cores of each worker, if the settings limit them.
    own: Vec<Option<Vec<usize>>>,
    /// Found out when they are needed. The error is the reason why they are not known.
    plan: OnceLock<Result<Plan, String>>,
}

/// The nodes of a pool.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Those that workers run on.
    nodes: Vec<NumaNode>,
    workers: Vec<WorkerNode>,
}

/// Where a worker runs.
#[derive(Debug, PartialEq, Eq)]
enum WorkerNode {
    /// On a node. `bind` are the cores that it has to be bound to for that.
    One { node: u32, bind: Option<Vec<usize>> },
    /// On cores of several nodes.
    Several(Vec<u32>),
}

/// The copy of the weights that a worker opens, sent to it with the program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeSeat {
    /// The node of the copy. `None` for the first copy, because of an obstacle.
    node: Option<u32>,
    /// The cores that the worker is bound to before it opens the copy.
    bind: Option<Vec<usize>>,
    why: Vec<Obstacle>,
}

/// The arena that a worker opens, and its seat if the program has replicas.
pub(crate) struct Copy {
    pub(crate) arena: Arena,
    pub(crate) seat: Option<NodeSeat>,
}

impl WorkerNodes {
    /// The nodes of the workers that this thread starts with the settings.
    pub(crate) fn of(settings: &Settings) -> Self {
        let own = |index| if settings.cores == Cores::Any { None } else { settings.placement(index).cores };
        let own = (0..settings.workers.max).map(own).collect();
        Self { allowed: allowed_cores(), own, plan: OnceLock::new() }
    }

    fn plan(&self) -> Result<&Plan, String> {
        let plan = || nodes().map(|nodes| Plan::new(&nodes, &self.allowed, &self.own));
        self.plan.get_or_init(plan).as_ref().map_err(Clone::clone)
    }

    /// Makes the replicas that a policy asks for, on the nodes that workers run on.
    pub(crate) fn replicate(&self, arena: &Arena, memory: MemoryPolicy) {
        if memory.replicas == Replicas::PerNumaNode {
            arena.replicate(self.plan().map(|plan| &plan.nodes[..]), memory);
        }
    }

    /// Returns the arena of a program that a worker opens.
    pub(crate) fn copy_for(&self, program: &Program, index: usize) -> Copy {
        let arena = &program.arena;
        if program.memory.replicas == Replicas::One {
            return Copy { arena: arena.clone(), seat: None };
        }
        let first = |why| Copy { arena: arena.clone(), seat: Some(NodeSeat { node: None, bind: None, why }) };
        match self.plan().map(|plan| plan.workers.get(index)) {
            Ok(Some(WorkerNode::One { node, bind })) => match arena.on_node(*node) {
                Ok(arena) => {
                    Copy { arena, seat: Some(NodeSeat { node: Some(*node), bind: bind.clone(), why: vec![] }) }
                }
                Err(why) => first(why),
            },
            Ok(Some(WorkerNode::Several(nodes))) => first(vec![Obstacle::SeveralNodes { nodes: nodes.clone() }]),
            Ok(None) => first(vec![Obstacle::OneNode]),
            Err(reason) => first(vec![Obstacle::UnknownNodes { reason }]),
        }
    }
}

impl Plan {
    /// `allowed` are the cores that the pool may use, and `own` those of each worker if they are limited.
    fn new(nodes: &[NumaNode], allowed: &[usize], own: &[Option<Vec<usize>>]) -> Self {
        let among = |node: &NumaNode, cores: &[usize]| -> Vec<usize> {
            node.cores.iter().copied().filter(|core| cores.contains(core)).collect()
        };
        let usable: Vec<(u32, Vec<usize>)> =
            nodes.iter().map(|node| (node.id, among(node, allowed))).filter(|(_, cores)| !cores.is_empty()).collect();
        // A kernel without NUMA has no nodes: all workers are on one.
        let turn = |index: usize| match index.checked_rem(usable.len()).map(|turn| &usable[turn]) {
            Some((node, cores)) => WorkerNode::One { node: *node, bind: Some(cores.clone()) },
            None => WorkerNode::One { node: 0, bind: None },
        };
        let limited = |cores: &[usize]| {
            let found: Vec<u32> =
                nodes.iter().filter(|node| !among(node, cores).is_empty()).map(|node| node.id).collect();
            match found[..] {
                [] => WorkerNode::One { node: 0, bind: None },
                [node] => WorkerNode::One { node, bind: None },
                _ => WorkerNode::Several(found),
            }
        };
        let workers = own.iter().enumerate();
        let workers: Vec<_> =
            workers.map(|(index, own)| own.as_ref().map_or_else(|| turn(index), |cores| limited(cores))).collect();
        let used: BTreeSet<u32> = workers
            .iter()
            .filter_map(|worker| match worker {
                WorkerNode::One { node, .. } => Some(*node),
                WorkerNode::Several(_) => None,
            })
            .collect();
        Self { nodes: nodes.iter().filter(|node| used.contains(&node.id)).cloned().collect(), workers }
    }
}

impl NodeSeat {
    /// The status of the replicas in the worker. `bound` is what came of binding it.
    fn add_to(self, status: &mut MemoryStatus, bytes: u64, bound: Result<(), String>) {
        let Self { node, mut why, .. } = self;
        if let Err(reason) = bound {
            why.push(Obstacle::NotBound { reason });
        }
        status.node = node;
        status.replicas =
            if why.is_empty() { PolicyStatus::Applied { bytes } } else { PolicyStatus::NotApplied { of: bytes, why } };
    }
}

/// Loads a program in a worker, which `bind` binds to the cores of its node first.
pub(crate) fn load_copy(
    arena: Arena,
    seat: Option<NodeSeat>,
    bind: impl FnOnce(&[usize]) -> Result<(), String>,
    loader: &FnToken,
    load: LoadOptions,
) -> Result<(LoadedProgram, MemoryStatus), LoadError> {
    let LoadOptions { device, strict, memory, prewarm } = load;
    // Before the first page is mapped, and before the pipeline allocates.
    let bound = seat.as_ref().and_then(|seat| seat.bind.as_deref()).map_or(Ok(()), bind);
    let bytes = arena.mapped_bytes();
    let (loaded, mut status) = load_program(arena, loader, device, strict, memory, prewarm)?;
    if let Some(seat) = seat {
        seat.add_to(&mut status, bytes, bound);
    }
    Ok((loaded, status))
}

/// How a worker loads a program.
pub(crate) struct LoadOptions {
    pub(crate) device: String,
    pub(crate) strict: bool,
    pub(crate) memory: MemoryPolicy,
    pub(crate) prewarm: Option<super::served::Prewarm>,
}

#[cfg(test)]
mod tests {
    use super::{MemoryStatus, NodeSeat, NumaNode, Obstacle, Plan, PolicyStatus, WorkerNode, WorkerNodes};
    use crate::engine::pool_size::PoolSize;
    use crate::engine::settings::{Cores, Settings};

    fn nodes() -> Vec<NumaNode> {
        [(0, vec![0, 1]), (2, vec![2, 3]), (5, vec![8])].map(|(id, cores)| NumaNode { id, cores }).to_vec()
    }

    fn ids(plan: &Plan) -> Vec<u32> {
        plan.nodes.iter().map(|node| node.id).collect()
    }

    fn one(node: u32, bind: &[usize]) -> WorkerNode {
        WorkerNode::One { node, bind: (!bind.is_empty()).then(|| bind.to_vec()) }
    }

    #[test]
    fn workers_get_the_nodes_in_turns() {
        let plan = Plan::new(&nodes(), &[0, 1, 2, 3, 8], &[None, None, None, None]);
        assert_eq!(plan.workers, [one(0, &[0, 1]), one(2, &[2, 3]), one(5, &[8]), one(0, &[0, 1])]);
        assert_eq!(ids(&plan), [0, 2, 5]);
        // The owner's own affinity leaves some out.
        let plan = Plan::new(&nodes(), &[1, 8, 77], &[None, None]);
        assert_eq!((&plan.workers[..], &ids(&plan)[..]), (&[one(0, &[1]), one(5, &[8])][..], &[0, 5][..]));
        // Fewer workers than nodes.
        assert_eq!(ids(&Plan::new(&nodes(), &[0, 2, 8], &[None])), [0]);
    }

    #[test]
    fn cores_of_the_settings_decide() {
        let own = [Some(vec![3]), Some(vec![0, 8]), Some(vec![8]), Some(vec![66])];
        let plan = Plan::new(&nodes(), &[0, 3, 8], &own);
        assert_eq!(plan.workers, [one(2, &[]), WorkerNode::Several(vec![0, 5]), one(5, &[]), one(0, &[])]);
        // Node 0 too, for the worker on a core that no node has.
        assert_eq!(ids(&plan), [0, 2, 5]);
        let spread = Plan::new(&nodes(), &[0, 2], &[Some(vec![0, 2]), Some(vec![1, 2])]);
        assert!(spread.nodes.is_empty());
    }

    #[test]
    fn kernel_without_numa_has_one_node() {
        let plan = Plan::new(&[], &[0, 1], &[None, Some(vec![1])]);
        assert_eq!(plan, Plan { nodes: Vec::new(), workers: vec![one(0, &[]), one(0, &[])] });
    }

    #[test]
    #[cfg_attr(miri, ignore = "reads files")]
    fn settings_limit_the_cores() {
        let settings = |cores| Settings { workers: PoolSize::fixed(3), cores, ..Settings::default() };
        let nodes = WorkerNodes::of(&settings(Cores::Any));
        assert!(nodes.own == [const { None }; 3] && !nodes.allowed.is_empty());
        let nodes = WorkerNodes::of(&settings(Cores::Listed(vec![vec![0], vec![4, 5]])));
        assert_eq!(nodes.own, [Some(vec![0]), Some(vec![4, 5]), Some(vec![0])]);
        assert_eq!(nodes.plan().unwrap().workers.len(), 3);
    }

    #[test]
    fn status_of_a_worker_has_the_obstacles() {
        let status = |seat: NodeSeat, bound| {
            let mut status = MemoryStatus::default();
            seat.add_to(&mut status, 10, bound);
            status
        };
        let seat = NodeSeat { node: Some(1), bind: Some(vec![0]), why: Vec::new() };
        let bound = status(seat.clone(), Ok(()));
        assert_eq!((bound.node, bound.replicas), (Some(1), PolicyStatus::Applied { bytes: 10 }));
        let reason = "no".to_owned();
        let loose = status(seat, Err(reason.clone()));
        assert_eq!((loose.node, loose.replicas.why()), (Some(1), &[Obstacle::NotBound { reason }][..]));
        let first = status(NodeSeat { node: None, bind: None, why: vec![Obstacle::OneNode] }, Ok(()));
        assert_eq!((first.node, first.replicas.why()), (None, &[Obstacle::OneNode][..]));
    }
}
