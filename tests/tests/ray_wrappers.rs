//! Pipelines on a Ray cluster, with the same wrappers and methods as on local workers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::sync::LazyLock;
use std::time::Duration;

use burn::tensor::{Device, Distribution, Tensor};
use ray_zerocopy::ray::{Cluster, ClusterTarget, Options, RayError};
use ray_zerocopy::{ActorWrapper, Actors, CallError, Error, LocalPool, TaskWrapper, gather, jit};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use rustix::process::{Pid, Signal, kill_process};

static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::local().cpus(4).object_store(300 << 20).quiet().start().unwrap());

const SIZE: usize = 512;

fn site() -> ClusterTarget {
    CLUSTER.with(Options::default().cpus(0.1))
}

fn model() -> TestModel {
    TestModelConfig::new(SIZE).init(&Device::flex())
}

fn input() -> Tensor<2> {
    Tensor::random([4, SIZE], Distribution::Default, &Device::flex())
}

fn actors(count: usize) -> Actors<TestModel> {
    ActorWrapper::on(&site(), &model()).unwrap().spawn(count).unwrap()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn traced_graphs_run_on_actors_and_tasks() {
    let model = model();
    let graph = jit::trace(&model)
        .input("input", input())
        .symbol("batch", [("input", 0)])
        .forward(|model, inputs| Ok(model.forward(inputs.float("input")?)))
        .unwrap();
    let input = Tensor::<2>::random([7, SIZE], Distribution::Default, &Device::flex());
    let here = model.forward(input.clone()).into_data();
    let actors = jit::JitActorWrapper::on(&site(), &graph).unwrap().strict().spawn(2).unwrap();
    for actor in actors.iter() {
        assert_eq!(actor.run([("input", input.clone())]).wait().unwrap().data("output").unwrap(), here);
    }
    let tasks = jit::JitTaskWrapper::on(&site(), &graph).unwrap().strict();
    assert_eq!(tasks.run([("input", input.clone())]).wait().unwrap().data("output").unwrap(), here);
    let error = tasks.run([("wheat", input)]).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Graph { .. })), "{error}");
}

/// The permissions of the mapping at an address, as in `/proc/self/maps`: `r--s`.
fn permissions(address: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let hex = |text: &str| usize::from_str_radix(text, 16).unwrap();
    let area = |line: &&str| {
        let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        (hex(start)..hex(end)).contains(&address)
    };
    maps.lines().find(area).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

/// Objects of the store are not page-aligned, so several can share a page.
#[test]
fn weights_below_a_page_are_protected() {
    let small = || TestModelConfig::new(8).init(&Device::flex());
    let wrappers: Vec<_> = (0..4).map(|_| ActorWrapper::on(&site(), &small()).unwrap()).collect();
    let mut loaded: Vec<_> = wrappers.iter().map(|wrapper| wrapper.load().unwrap()).collect();
    let addresses: Vec<_> = loaded.iter().map(|model| model.weight_address()).collect();
    for address in &addresses {
        assert_eq!([*address, address + 8 * 8 * 4 - 1].map(permissions), ["r--s", "r--s"]);
    }
    // Dropping one leaves the others protected, and makes its memory writable for the store again.
    drop((loaded.remove(1), wrappers));
    for (at, address) in addresses.iter().enumerate() {
        assert_eq!(permissions(*address), if at == 1 { "rw-s" } else { "r--s" }, "{at}");
    }
}

#[test]
fn tasks_answer_as_the_original_does() {
    let model = model();
    let tasks = TaskWrapper::on(&site(), &model).unwrap();
    let input = input();
    let here = model.forward(input.clone()).into_data();
    for there in gather((0..8).map(|_| tasks.forward(input.clone()))).wait().unwrap() {
        assert_eq!(there.into_data(), here);
    }
    // Also with arguments and results that are too large for a message.
    let much = Tensor::<2>::random([200, SIZE], Distribution::Default, &Device::flex());
    let here = model.forward(much.clone()).into_data();
    assert_eq!(tasks.forward(much).wait().unwrap().into_data(), here);
    // The same as with a local pool.
    let local = TaskWrapper::on(&LocalPool::builder().workers(1).start().unwrap(), &model).unwrap();
    assert_eq!(
        local.forward(input.clone()).wait().unwrap().into_data(),
        tasks.forward(input).wait().unwrap().into_data()
    );
}

#[test]
fn worker_caches_its_borrowed_pipeline() {
    let tasks = TaskWrapper::on(&CLUSTER.with(Options::default().cpus(4.0)), &model()).unwrap();
    let pids = (0..12).map(|_| tasks.pid().wait().unwrap()).collect::<std::collections::BTreeSet<_>>();
    let report = tasks.report().unwrap();
    let workers = &report.processes[1..];
    assert!(workers.len() <= pids.len() + 1, "{report}");
    for worker in workers {
        assert_eq!(worker.copied, 0, "{report}");
        assert!(worker.attach_micros.is_some(), "{report}");
    }
    assert_eq!(report.arena, tasks.arena().size_bytes());
    assert!(tasks.arena().fd().is_none(), "the arena is in the store");
    // This process borrows from the store too.
    let input = input();
    let there = tasks.forward(input.clone()).wait().unwrap();
    assert_eq!(tasks.load().unwrap().forward(input).into_data(), there.into_data());
}

#[test]
fn panic_keeps_its_message_and_its_worker() {
    let actors = actors(1);
    let pid = actors.pid().wait().unwrap();
    let error = actors.count_and_panic().wait().unwrap_err();
    let Error::Call(CallError::Panicked { method, worker, message }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), worker.pid), ("count_and_panic", pid));
    assert!(message.starts_with("panicked while counting (tests/src/models.rs:"), "{message}");
    assert_eq!(actors.pid().wait().unwrap(), pid);
    assert_eq!(actors.count(1).wait().unwrap(), 1);
}

#[test]
fn actors_keep_own_state_and_call_order() {
    let actors = actors(2);
    let counts = gather((1..=30).map(|_| actors.actor(0).count(1))).wait().unwrap();
    assert_eq!(counts, (1..=30).collect::<Vec<_>>());
    assert_eq!(actors.actor(1).count(5).wait().unwrap(), 5);
    let pids: Vec<_> = actors.iter().map(|actor| actor.pid().wait().unwrap()).collect();
    assert_ne!(pids[0], pids[1]);
    let report = actors.report().unwrap();
    assert_eq!(report.processes.len(), 3, "{report}");
    actors.shut_down();
    pids.iter().for_each(|pid| eventually("an actor ends", || !is_alive(*pid)));
    assert!(matches!(actors.pid().wait(), Err(Error::Call(CallError::ShutDown { .. }))));
}

#[test]
fn killed_actor_restarts_with_its_weights() {
    let actors = actors(2);
    let before = actors.actor(0).total().wait().unwrap();
    let pid = actors.actor(0).pid().wait().unwrap();
    let busy = actors.actor(0).sleep(60_000);
    std::thread::sleep(Duration::from_millis(300));
    kill(pid);
    let error = busy.wait().unwrap_err();
    let Error::Call(CallError::WorkerDied { method, worker, is_actor: true, .. }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), worker.index, worker.pid), ("sleep", 0, pid));
    // A call waits until the actor has restarted.
    let after = actors.actor(0).pid().wait().unwrap();
    assert_ne!(after, pid);
    assert_eq!(actors.actor(0).total().wait().unwrap().to_bits(), before.to_bits());
}

#[test]
fn a_task_whose_worker_is_killed_runs_again() {
    let tasks = TaskWrapper::on(&site(), &model()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("once").to_string_lossy().into_owned();
    // The first attempt creates the file and kills its worker.
    assert!(tasks.die_once(path.clone()).wait().unwrap() > 0);
    assert!(std::path::Path::new(&path).exists());
    let error = tasks.clone().attempts(1).die_always().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { is_actor: false, .. })), "{error}");
    assert!(tasks.pid().wait().is_ok());
}

#[test]
fn deadline_ends_a_call_and_its_worker() {
    let tasks = TaskWrapper::on(&site(), &model()).unwrap().deadline(Duration::from_secs(20));
    assert!(tasks.pid().wait().is_ok());
    let error = tasks.clone().deadline(Duration::from_millis(700)).sleep(60_000).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    assert!(tasks.pid().wait().is_ok());

    let actors = actors(1);
    let pid = actors.pid().wait().unwrap();
    let error = actors.clone().deadline(Duration::from_millis(300)).sleep(60_000).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    let other = actors.pid().wait().unwrap();
    assert_ne!(other, pid);
    eventually("the busy actor ends", || !is_alive(pid));
}

#[test]
fn arena_in_the_store_is_refused_by_local_pools() {
    let wrapper = ActorWrapper::on(&site(), &model()).unwrap();
    let local = LocalPool::builder().workers(1).start().unwrap();
    let error = TaskWrapper::<TestModel>::from_arena_on(&local, wrapper.arena().clone()).unwrap_err();
    assert!(error.to_string().contains("is in Ray's object store"), "{error}");
    let error = serde_json::to_string(&wrapper).unwrap_err();
    assert!(error.to_string().contains("is in Ray's object store"), "{error}");
    // It can be verified and saved.
    wrapper.arena().verify().unwrap();
    let folder = tempfile::tempdir().unwrap();
    wrapper.arena().save(folder.path().join("model.bpk")).unwrap();
    let back = ray_zerocopy::Arena::open(folder.path().join("model.bpk")).unwrap();
    assert_eq!(back.id(), wrapper.arena().id());
    let memory = ray_zerocopy::memory::MemoryPolicy::default().lock(true);
    assert!(back.memory_status().lock.why().is_empty());
    let outcome = wrapper.arena().apply_policy(memory);
    assert_eq!(outcome.lock.why(), [ray_zerocopy::memory::Obstacle::InStore]);
}

#[test]
fn full_store_is_an_error_before_any_write() {
    // 400 MiB of weights for a store of 300 MiB.
    let large = TestModelConfig::new(10_240).init(&Device::flex());
    let error = ActorWrapper::on(&site(), &large).unwrap_err();
    let Error::Ray(RayError::StoreFull { needed, free, capacity }) = &error else { panic!("{error}") };
    assert!(*needed > 400 << 20 && free <= capacity && *capacity < 320 << 20, "{error}");
    assert!(error.to_string().contains("--object-store-memory"), "{error}");
}

#[test]
fn actors_that_find_no_place_say_what_there_is() {
    let site = CLUSTER.with(Options::default().cpus(64.0));
    let wrapper = ActorWrapper::on(&site, &model()).unwrap().start_timeout(Duration::from_secs(3));
    let error = wrapper.spawn(1).unwrap_err();
    let Error::Call(CallError::Start(start)) = &error else { panic!("{error}") };
    assert!(start.reason().contains("the cluster has 4 CPUs"), "{start}");
}

#[test]
fn a_pipeline_that_cannot_be_loaded_says_so() {
    let wrapper = ActorWrapper::on(&site(), &model()).unwrap().device("cuda:7").unwrap();
    let error = wrapper.spawn(1).unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Load { .. })), "{error}");
    assert!(error.to_string().contains("cuda"), "{error}");
}

#[test]
fn direct_calls_give_the_same_answers() {
    let model = model();
    let direct = CLUSTER.with(Options::default().cpus(0.1).compiled_graph());
    let actors = ActorWrapper::on(&direct, &model).unwrap().spawn(2).unwrap();
    let input = input();
    let here = model.forward(input.clone()).into_data();
    for there in gather((0..12).map(|_| actors.forward(input.clone()))).wait().unwrap() {
        assert_eq!(there.into_data(), here);
    }
    // State, order, and calls that are too large for the channel.
    let counts = gather((1..=30).map(|_| actors.actor(0).count(1))).wait().unwrap();
    assert_eq!(counts, (1..=30).collect::<Vec<_>>());
    let much = Tensor::<2>::random([200, SIZE], Distribution::Default, &Device::flex());
    let large = model.forward(much.clone()).into_data();
    assert_eq!(actors.actor(0).forward(much).wait().unwrap().into_data(), large);
    assert_eq!(actors.actor(0).count(0).wait().unwrap(), 30);
    let error = actors.actor(0).count_and_panic().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Panicked { .. })), "{error}");
    // A small argument with a large result.
    let text = "x".repeat(3_000_000);
    let (_, back, _) = actors.echo(serde_json::Value::Null, text.clone(), Vec::new()).wait().unwrap();
    assert_eq!(back, text);
}

#[test]
fn killed_direct_actor_restarts() {
    let direct = CLUSTER.with(Options::default().cpus(0.1).compiled_graph());
    let actors = ActorWrapper::on(&direct, &model()).unwrap().spawn(1).unwrap();
    let pid = actors.pid().wait().unwrap();
    let busy = actors.sleep(60_000);
    std::thread::sleep(Duration::from_millis(300));
    kill(pid);
    let error = busy.wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { is_actor: true, .. })), "{error}");
    assert_ne!(actors.pid().wait().unwrap(), pid);

    let pid = actors.pid().wait().unwrap();
    let error = actors.clone().deadline(Duration::from_millis(300)).sleep(60_000).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    assert_ne!(actors.pid().wait().unwrap(), pid);
    eventually("the busy actor ends", || !is_alive(pid));
}
