//! Replicas by NUMA node. On a machine with several nodes, each worker reads the copy of its own node; on one
//! node, nothing is copied. The step `old kernel` runs these tests on a virtual machine with two nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use burn::backend::{BackendTensor, DispatchTensorKind};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::jit::{JitActorWrapper, JitTaskWrapper, trace};
use ray_zerocopy::memory::{MemoryPolicy, Obstacle, PolicyStatus, Replicas};
use ray_zerocopy::report::{ReplicaReport, Report};
use ray_zerocopy::{ActorWrapper, Arena, LocalPool, Pipeline, TaskWrapper, Threads, gather, share};
use ray_zerocopy_tests::memory::eventually;
use ray_zerocopy_tests::seccomp;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Rows and columns: 4 MiB.
const SIZE: usize = 1024;
const BYTES: u64 = (SIZE * SIZE * 4) as u64;

#[derive(Pipeline)]
#[pipeline(init = Probe::new)]
struct Probe {
    layer: Linear,
}

/// What a worker sees of itself and of its weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Seen {
    pid: u32,
    cores: BTreeSet<u32>,
    /// The memfd that the weights are in.
    inode: u64,
    /// Where the pages of the weights are.
    pages: BTreeMap<u32, u64>,
    /// Number of arenas that the process has mapped.
    arenas: usize,
}

#[ray_zerocopy::remote]
impl Probe {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(SIZE, SIZE).with_bias(false).init(device) }
    }

    pub fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        self.layer.forward(input)
    }

    pub fn seen(&self) -> Seen {
        // Every page is in the page table then.
        assert!(self.layer.weight.val().sum().into_scalar::<f32>().is_finite());
        let address = match self.layer.weight.val().into_dispatch().kind {
            DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.bytes().as_ptr() as usize,
            other => panic!("not a float tensor on flex: {other:?}"),
        };
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let arenas: Vec<_> = maps.lines().filter(|line| line.contains("/memfd:ray-zerocopy (deleted)")).collect();
        let of = |line: &&&str| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
            (start..end).contains(&address)
        };
        let own = arenas.iter().find(of).expect("the weights are in an arena");
        let inode = own.split_whitespace().nth(4).unwrap().parse().unwrap();
        let (start, _) = own.split_once('-').unwrap();
        Seen { pid: std::process::id(), cores: numbers(cores), inode, pages: pages(start), arenas: arenas.len() }
    }
}

/// The bytes by node of the mapping that begins at an address.
fn pages(start: &str) -> BTreeMap<u32, u64> {
    let text = fs::read_to_string("/proc/self/numa_maps").unwrap();
    let line = text.lines().find(|line| line.split(' ').next() == Some(start)).unwrap();
    let pages = line.split(' ').filter_map(|word| word.strip_prefix('N')?.split_once('='));
    pages.map(|(node, pages)| (node.parse().unwrap(), pages.parse::<u64>().unwrap() * 4096)).collect()
}

/// Parses a list such as `0-3,8`.
fn numbers(list: &str) -> BTreeSet<u32> {
    let ranges = list.trim().split(',').filter(|part| !part.is_empty()).map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u32>().unwrap()..=last.parse().unwrap()
    });
    ranges.flatten().collect()
}

/// The nodes of this machine that have cores which this process may use, with these cores.
fn nodes() -> BTreeMap<u32, BTreeSet<u32>> {
    let read = |path: &str| fs::read_to_string(format!("/sys/devices/system/node/{path}"));
    // Not that of the test's thread, which a test may have bound.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = numbers(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap());
    let online = read("has_memory").map(|list| numbers(&list)).unwrap_or_default();
    let cores = |node: u32| &numbers(&read(&format!("node{node}/cpulist")).unwrap()) & &allowed;
    online.into_iter().map(|node| (node, cores(node))).filter(|(_, cores)| !cores.is_empty()).collect()
}

/// Whether this machine has several nodes. The tests then need two.
fn has_several() -> bool {
    let several = nodes().len() > 1;
    eprintln!("{}", if several { "several NUMA nodes" } else { "one NUMA node" });
    several
}

fn policy() -> MemoryPolicy {
    MemoryPolicy::default().replicas(Replicas::PerNumaNode)
}

fn model() -> (Probe, Tensor<2>, burn::tensor::TensorData) {
    let model = Probe::new(&Device::flex());
    let input = Tensor::<2>::ones([2, SIZE], &Device::flex());
    let expected = model.forward(input.clone()).into_data();
    (model, input, expected)
}

/// Checks that nothing was copied, that no worker is bound, and that the report says why.
fn check_one_copy(report: &Report, seen: &[Seen], why: &[Obstacle]) {
    assert_eq!(report.replicas, [], "{report}");
    assert_eq!(seen.iter().map(|seen| seen.inode).collect::<BTreeSet<_>>().len(), 1, "{seen:?}");
    let allowed = nodes().into_values().flatten().collect();
    assert!(nodes().is_empty() || seen.iter().all(|seen| seen.cores == allowed), "{seen:?}");
    assert!(report.processes.iter().all(|row| row.memory.replicas.why() == why), "{report}");
    assert!(report.to_string().contains("one NUMA node: one copy"), "{report}");
}

/// Checks that two workers are on two nodes, that each reads the copy there, and that the report says so.
fn check_two_copies(report: &Report, arena: &Arena, seen: &[Seen]) {
    let nodes = nodes();
    let own = |seen: &Seen| *nodes.iter().find(|(_, cores)| **cores == seen.cores).expect("cores of one node").0;
    let on: Vec<u32> = seen.iter().map(own).collect();
    let [first, second] = on[..] else { panic!("{seen:?}") };
    assert!(first != second && seen[0].inode != seen[1].inode, "{seen:?}");
    for (worker, node) in seen.iter().zip(&on) {
        assert_eq!(worker.pages.keys().copied().collect::<Vec<_>>(), [*node], "{seen:?}");
        assert!(worker.pages[node] >= BYTES, "{seen:?}");
    }
    assert_eq!(report.replicas.len(), 2, "{report}");
    assert_eq!(report.replicas.iter().filter(|copy| copy.is_first).count(), 1, "{report}");
    for ReplicaReport { node, bytes, pages, workers, .. } in &report.replicas {
        assert_eq!((*bytes, workers.len()), (arena.size_bytes(), 1), "{report}");
        let index = workers[0].index;
        assert_eq!((on[index], &pages.iter().map(|(node, _)| *node).collect::<Vec<_>>()[..]), (*node, &[*node][..]));
    }
    let owner = &report.processes[0].memory.replicas;
    assert_eq!(owner, &PolicyStatus::Applied { bytes: 2 * arena.size_bytes() }, "{report}");
    assert!(report.to_string().starts_with("2 copies of the weights: "), "{report}");
}

/// The arenas that this process has open or mapped, by inode.
fn held() -> BTreeSet<u64> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.contains("/memfd:ray-zerocopy"));
    let mapped = mapped.filter_map(|line| line.split_whitespace().nth(4)?.parse().ok());
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| {
        let name = fs::read_link(entry.path()).ok()?;
        let is_arena = name.to_string_lossy().contains("/memfd:ray-zerocopy");
        is_arena.then(|| fs::metadata(entry.path()).ok().map(|data| data.ino())).flatten()
    });
    mapped.chain(open).collect()
}

/// Waits until the memory of the copies has been returned: no process has it any more.
fn check_returned(seen: &[Seen]) {
    let inodes: BTreeSet<_> = seen.iter().map(|seen| seen.inode).collect();
    eventually("the copies are dropped", || held().is_disjoint(&inodes));
}

#[test]
fn actors_read_the_copy_of_their_node() {
    let (model, input, expected) = model();
    let shared = ActorWrapper::new(&model).unwrap().threads_per_worker(1).memory(policy());
    let (arena, id) = (shared.arena().clone(), shared.arena().id());
    assert_eq!(arena.memory_status().replicas.why(), [Obstacle::NoWorkers]);
    let actors = shared.spawn(2).unwrap();
    let look = || -> Vec<Seen> { actors.iter().map(|actor| actor.seen().wait().unwrap()).collect() };
    let check = |seen: &[Seen]| {
        let report = actors.report().unwrap();
        if has_several() {
            check_two_copies(&report, &arena, seen);
            // Each process has one copy, and so nothing is saved but the owner's share.
            assert!(seen.iter().all(|seen| seen.arenas == 1), "{seen:?}");
            let rows = &report.processes[1..];
            assert!(rows.iter().all(|row| row.shared >= BYTES && row.private < BYTES), "{report}");
            assert!(report.saved() < BYTES, "{report}");
        } else {
            check_one_copy(&report, seen, &[Obstacle::OneNode]);
        }
    };
    for actor in actors.iter() {
        let pending = actor.forward(input.clone());
        assert_eq!(pending.arena_id(), Some(id));
        assert_eq!(pending.wait().unwrap().into_data(), expected);
    }
    let before = look();
    check(&before);

    // A worker that is replaced reads the same copy.
    kill_process(Pid::from_raw(before[1].pid as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the actor has a new process", || actors.actor(1).seen().wait().is_ok());
    let after = look();
    assert!(after[1].pid != before[1].pid && after[1].inode == before[1].inode, "{after:?}");
    check(&after);
    assert!(actors.iter().all(|actor| actor.forward(input.clone()).wait().unwrap().into_data() == expected));

    actors.shut_down();
    drop((actors, shared, arena));
    check_returned(&after);
}

/// Calls of tasks until each of two workers has answered one.
fn look_at_tasks(tasks: &TaskWrapper<Probe>) -> Vec<Seen> {
    let mut found = BTreeMap::new();
    eventually("both workers have answered", || {
        let answers = gather((0..4).map(|_| tasks.seen())).wait().unwrap();
        found.extend(answers.into_iter().map(|seen| (seen.pid, seen)));
        found.len() == 2
    });
    found.into_values().collect()
}

#[test]
fn swap_makes_copies_of_the_new_weights() {
    let pool = LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap();
    let ((first, ..), (second, input, expected)) = (model(), model());
    let tasks = TaskWrapper::on(&pool, &first).unwrap().memory(policy());
    let check = |seen: &[Seen]| {
        let report = tasks.report().unwrap();
        if has_several() {
            let mut seen = seen.to_vec();
            let index = |seen: &Seen| pool.workers().iter().position(|worker| worker.pid == seen.pid);
            seen.sort_by_key(index);
            check_two_copies(&report, &tasks.arena(), &seen);
        } else {
            check_one_copy(&report, seen, &[Obstacle::OneNode]);
        }
    };
    let before = look_at_tasks(&tasks);
    check(&before);

    let arena = share(&second).unwrap();
    tasks.swap(arena.clone()).unwrap();
    assert_eq!(tasks.forward(input.clone()).wait().unwrap().into_data(), expected);
    check_returned(&before);
    let after = look_at_tasks(&tasks);
    check(&after);

    // New processes read the same copies.
    pool.restart().unwrap();
    let restarted = look_at_tasks(&tasks);
    let inodes = |seen: &[Seen]| seen.iter().map(|seen| seen.inode).collect::<BTreeSet<_>>();
    assert_eq!(inodes(&restarted), inodes(&after));
    check(&restarted);
    assert_eq!(tasks.forward(input).wait().unwrap().into_data(), expected);
    drop((tasks, arena));
    check_returned(&after);
}

#[test]
fn threads_read_the_copy_of_their_node() {
    let (model, input, expected) = model();
    let threads = Threads::builder().workers(2).threads_per_worker(2).build();
    let shared = ActorWrapper::on(&threads, &model).unwrap().memory(policy());
    let actors = shared.spawn(2).unwrap();
    let seen: Vec<Seen> = actors.iter().map(|actor| actor.seen().wait().unwrap()).collect();
    assert!(actors.iter().all(|actor| actor.forward(input.clone()).wait().unwrap().into_data() == expected));
    let report = actors.report().unwrap();
    if has_several() {
        check_two_copies(&report, shared.arena(), &seen);
    } else {
        assert_eq!(report.processes[0].memory.replicas.why(), [Obstacle::OneNode], "{report}");
        check_one_copy(&report, &seen, &[Obstacle::OneNode]);
    }
    drop((actors, shared, threads));
    check_returned(&seen);
}

#[test]
fn cores_of_the_settings_decide_on_the_copy() {
    let (model, input, expected) = model();
    let nodes = nodes();
    let all: Vec<usize> = nodes.values().flatten().map(|core| *core as usize).collect();
    let last: Vec<usize> = nodes.values().last().into_iter().flatten().map(|core| *core as usize).collect();
    let first: Vec<usize> = nodes.values().next().into_iter().flatten().map(|core| *core as usize).collect();
    let shared = ActorWrapper::new(&model).unwrap().threads_per_worker(1).memory(policy());
    let shared = shared.affinity([first, last, all.clone()]);
    let actors = shared.spawn(3).unwrap();
    let seen: Vec<Seen> = actors.iter().map(|actor| actor.seen().wait().unwrap()).collect();
    let report = actors.report().unwrap();
    assert!(actors.iter().all(|actor| actor.forward(input.clone()).wait().unwrap().into_data() == expected));
    if !has_several() {
        return check_one_copy(&report, &seen, &[Obstacle::OneNode]);
    }
    let mut first_two = report.clone();
    first_two.replicas.iter_mut().for_each(|copy| copy.workers.retain(|worker| worker.index != 2));
    check_two_copies(&first_two, shared.arena(), &seen[..2]);
    // The third one reads the first copy, and stays where it may run.
    let copy = report.replicas.iter().find(|copy| copy.is_first).unwrap();
    let of = copy.workers.iter().find(|worker| worker.index != 2).unwrap().index;
    assert!(copy.workers.iter().any(|worker| worker.index == 2) && seen[2].inode == seen[of].inode, "{report}");
    assert_eq!(seen[2].cores.len(), all.len());
    let why = report.processes[3].memory.replicas.why();
    assert_eq!(why, [Obstacle::SeveralNodes { nodes: nodes.keys().copied().collect() }], "{report}");
}

/// A container's seccomp policy usually refuses `mbind`. The kernel then takes the memory of the node on whose
/// cores the copy is made.
#[test]
fn copies_are_on_their_nodes_without_mbind() {
    let (model, input, expected) = model();
    seccomp::refuse(libc::SYS_mbind);
    let shared = ActorWrapper::new(&model).unwrap().threads_per_worker(1).memory(policy());
    let actors = shared.spawn(2).unwrap();
    let seen: Vec<Seen> = actors.iter().map(|actor| actor.seen().wait().unwrap()).collect();
    assert!(actors.iter().all(|actor| actor.forward(input.clone()).wait().unwrap().into_data() == expected));
    let report = actors.report().unwrap();
    if has_several() {
        // The first copy is where it was.
        let refused = Obstacle::Refused { call: "mbind".to_owned(), errno: libc::EPERM };
        let status = &report.processes[0].memory.replicas;
        assert!(matches!(status, PolicyStatus::Applied { .. }) || status.why() == [refused], "{report}");
        let copy = report.replicas.iter().find(|copy| !copy.is_first).unwrap();
        let index = copy.workers[0].index;
        assert_eq!(seen[index].pages.keys().copied().collect::<Vec<_>>(), [copy.node], "{report}");
        assert!(seen[0].inode != seen[1].inode, "{report}");
    } else {
        check_one_copy(&report, &seen, &[Obstacle::OneNode]);
    }
}

/// Variants of one base have one copy of the base on each node.
#[test]
fn variants_share_the_copies_of_their_base() {
    let base = share(&Pair::new(&Device::flex())).unwrap();
    let mut variants = Vec::new();
    for _ in 0..2 {
        let mut pair = ray_zerocopy::load::<Pair>(&base, &Device::flex()).unwrap().into_inner();
        pair.head = LinearConfig::new(8, 8).init(&Device::flex());
        variants.push(base.variant(&pair).unwrap());
    }
    let spawn = |arena: &Arena| {
        let shared = ActorWrapper::<Pair>::from_arena(arena.clone()).threads_per_worker(1).memory(policy());
        (shared.spawn(2).unwrap(), shared)
    };
    let spawned: Vec<_> = variants.iter().map(spawn).collect();
    let body = |seen: Vec<(u64, u64)>| (seen.iter().map(|(body, _)| *body).collect::<BTreeSet<_>>(), seen);
    let seen: Vec<_> = spawned
        .iter()
        .map(|(actors, _)| body(actors.iter().map(|actor| actor.inodes().wait().unwrap()).collect()))
        .collect();
    assert_eq!(seen[0].0, seen[1].0, "copies of the base: {seen:?}");
    let copies = if has_several() { 2 } else { 1 };
    assert_eq!(seen[0].0.len(), copies, "{seen:?}");
    let heads: BTreeSet<u64> = seen.iter().flat_map(|(_, seen)| seen.iter().map(|(_, head)| *head)).collect();
    assert_eq!(heads.len(), 2 * copies, "{seen:?}");
    let ids: Vec<_> = variants.iter().map(Arena::id).collect();
    for ((actors, shared), id) in spawned.iter().zip(ids) {
        assert_eq!(shared.arena().id(), id);
        let report = actors.report().unwrap();
        assert_eq!(report.replicas.len(), if copies == 1 { 0 } else { 2 }, "{report}");
    }
    let inodes: BTreeSet<u64> = seen.iter().flat_map(|(_, seen)| seen.iter().flat_map(|(a, b)| [*a, *b])).collect();
    drop((spawned, variants, base));
    eventually("the copies are dropped", || held().is_disjoint(&inodes));
}

#[test]
fn graphs_have_the_same_policy() {
    let (model, input, _) = model();
    let graph = trace(&model).input("x", input.clone()).forward(|model, inputs| Ok(model.forward(inputs.float("x")?)));
    let graph = graph.unwrap();
    let expected = graph.load("cpu").unwrap().run([("x", input.clone())]).unwrap();
    let expected = expected.float::<2>("output").unwrap().into_data();
    let pool = LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap();
    let tasks = JitTaskWrapper::on(&pool, &graph).unwrap().memory(policy());
    let actors = JitActorWrapper::new(&graph).threads_per_worker(1).memory(policy()).spawn(2).unwrap();
    for _ in 0..4 {
        for outputs in [tasks.run([("x", input.clone())]), actors.run([("x", input.clone())])] {
            assert_eq!(outputs.wait().unwrap().float::<2>("output").unwrap().into_data(), expected);
        }
    }
    for report in [tasks.report().unwrap(), actors.report().unwrap()] {
        if has_several() {
            assert_eq!(report.replicas.len(), 2, "{report}");
            assert!(matches!(report.processes[0].memory.replicas, PolicyStatus::Applied { .. }), "{report}");
        } else {
            assert_eq!(report.processes[0].memory.replicas.why(), [Obstacle::OneNode], "{report}");
        }
    }
}

/// A large part that variants share, and a small one.
#[derive(Pipeline)]
#[pipeline(init = Pair::new)]
struct Pair {
    body: Linear,
    head: Linear,
}

#[ray_zerocopy::remote]
impl Pair {
    #[remote(skip)]
    pub fn new(device: &Device) -> Self {
        Self { body: LinearConfig::new(512, 512).init(device), head: LinearConfig::new(8, 8).init(device) }
    }

    /// The memfds of the body and of the head.
    pub fn inodes(&self) -> (u64, u64) {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let inode = |layer: &Linear| {
            let address = match layer.weight.val().into_dispatch().kind {
                DispatchTensorKind::Flex(BackendTensor::Float(tensor)) => tensor.bytes().as_ptr() as usize,
                other => panic!("not a float tensor on flex: {other:?}"),
            };
            let line = maps.lines().find(|line| {
                let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
                let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).unwrap());
                (start..end).contains(&address)
            });
            line.unwrap().split_whitespace().nth(4).unwrap().parse().unwrap()
        };
        (inode(&self.body), inode(&self.head))
    }
}
