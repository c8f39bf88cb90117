//! Replicas by NUMA node. On a machine with several nodes, each worker reads the copy of its own node; on one
//! node, nothing is copied. The step `old kernel` runs these tests on a virtual machine with two nodes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod machine;
mod models;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use ray_zerocopy::jit::{JitActorWrapper, JitTaskWrapper, trace};
use ray_zerocopy::memory::{MemoryPolicy, Obstacle, PolicyStatus, Replicas};
use ray_zerocopy::report::{ReplicaReport, Report};
use ray_zerocopy::{ActorWrapper, Arena, LocalPool, TaskWrapper, Threads, gather, share};
use ray_zerocopy_tests::memory::eventually;
use ray_zerocopy_tests::seccomp;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use machine::{cores, has_several, held_arenas, nodes};
use models::{BYTES, Pair, Probe, Seen, probe};

fn policy() -> MemoryPolicy {
    MemoryPolicy::default().replicas(Replicas::PerNumaNode)
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

/// Waits until the memory of the copies has been returned: no process has it any more.
fn check_returned(seen: &[Seen]) {
    let inodes: BTreeSet<_> = seen.iter().map(|seen| seen.inode).collect();
    eventually("the copies are dropped", || held_arenas().is_disjoint(&inodes));
}

#[test]
fn actors_read_the_copy_of_their_node() {
    let (model, input, expected) = probe();
    let shared = ActorWrapper::new(&model).unwrap().threads_per_worker(2).memory(policy());
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
    check_swap(&LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap());
}

#[test]
fn elastic_pool_has_copies_for_all_its_workers() {
    check_swap(&LocalPool::builder().workers(0..=2).threads_per_worker(1).start().unwrap());
}

fn check_swap(pool: &LocalPool) {
    let ((first, ..), (second, input, expected)) = (probe(), probe());
    let tasks = TaskWrapper::on(pool, &first).unwrap().memory(policy());
    let check = |seen: &[Seen]| {
        let report = tasks.report().unwrap();
        if has_several() {
            let mut seen = seen.to_vec();
            seen.sort_by_key(|seen| pool.workers().iter().find(|worker| worker.pid == seen.pid).unwrap().index);
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
    let (model, input, expected) = probe();
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
    let (model, input, expected) = probe();
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
    check_two_copies(&report, shared.arena(), &seen[..2]);
    // The third one reads the first copy, and stays where it may run.
    let copy = report.replicas.iter().find(|copy| copy.is_first).unwrap();
    let why = [Obstacle::SeveralNodes { nodes: nodes.keys().copied().collect() }];
    let [(worker, found)] = &copy.without_own[..] else { panic!("{report}") };
    assert_eq!((worker.index, &found[..]), (2, &why[..]), "{report}");
    assert_eq!(seen[2].inode, seen[copy.workers[0].index].inode, "{report}");
    assert_eq!(seen[2].cores.len(), all.len());
    assert_eq!(report.processes[3].memory.replicas.why(), why, "{report}");
}

/// A container's seccomp policy usually refuses `mbind`. The kernel then takes the memory of the node on whose
/// cores the copy is made.
#[test]
fn copies_are_on_their_nodes_without_mbind() {
    seccomp::refuse(libc::SYS_mbind);
    // The first copy is on a node that the test has chosen, so each node gets a copy once.
    let mut chosen: Vec<_> = nodes().into_values().collect();
    if chosen.is_empty() {
        // The kernel does not support NUMA.
        chosen.push(cores("self"));
    }
    chosen.iter().for_each(check_without_mbind);
}

fn check_without_mbind(cores: &BTreeSet<u32>) {
    let (model, input, expected) = probe();
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core as usize));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
    let pool = pool.start_handler(move |_| sched_setaffinity(None, &set).unwrap()).build().unwrap();
    let arena = pool.install(|| share(&model).unwrap());
    let shared = ActorWrapper::<Probe>::from_arena(arena).threads_per_worker(1).memory(policy());
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
        assert!(nodes()[&copy.node].is_disjoint(cores), "{report}");
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
    let loaded = || ray_zerocopy::load::<Pair>(&base, &Device::flex()).unwrap().into_inner();
    let variants = [(); 2].map(|()| base.variant(&loaded().tuned()).unwrap());
    let copies = if has_several() { 2 } else { 1 };
    let spawned = variants.map(|variant| {
        let shared = ActorWrapper::<Pair>::from_arena(variant.clone()).threads_per_worker(1).memory(policy());
        let actors = shared.spawn(2).unwrap();
        assert_eq!(shared.arena().id(), variant.id());
        let report = actors.report().unwrap();
        assert_eq!(report.replicas.len(), if copies == 1 { 0 } else { copies }, "{report}");
        actors
    });
    let seen = spawned
        .each_ref()
        .map(|actors| -> Vec<[u64; 2]> { actors.iter().map(|actor| actor.inodes().wait().unwrap()).collect() });
    let bodies = |seen: &[[u64; 2]]| seen.iter().map(|[body, _]| *body).collect::<BTreeSet<_>>();
    assert_eq!(bodies(&seen[0]), bodies(&seen[1]), "copies of the base: {seen:?}");
    assert_eq!(bodies(&seen[0]).len(), copies, "{seen:?}");
    let heads: BTreeSet<u64> = seen.iter().flatten().map(|[_, head]| *head).collect();
    assert_eq!(heads.len(), 2 * copies, "{seen:?}");
    drop((spawned, base));
    let inodes: BTreeSet<u64> = seen.into_iter().flatten().flatten().collect();
    eventually("the copies are dropped", || held_arenas().is_disjoint(&inodes));
}

#[test]
fn graphs_have_the_same_policy() {
    let (model, input, _) = probe();
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
