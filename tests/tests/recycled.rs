//! Worker processes that use the memory of large messages again, and the conformance suite on them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use ray_zerocopy::{ActorWrapper, LocalPool, Pipeline, TaskWrapper, gather};
use ray_zerocopy_tests::engine_conforms;
use ray_zerocopy_tests::engines::EngineUnderTest;
use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Pid, Signal, kill_process};

const MIB: u64 = 1 << 20;
/// Name of the memory in `/proc`.
const NAME: &str = "/memfd:ray-zerocopy-recycled";

struct Recycling;

impl EngineUnderTest for Recycling {
    type Backend = LocalPool;

    fn backend(workers: usize) -> LocalPool {
        pool(workers, 64 * MIB)
    }

    const REPLACES_WORKERS: bool = true;
}

engine_conforms!(conforms, super::Recycling);

fn pool(workers: usize, bytes: u64) -> LocalPool {
    LocalPool::builder().workers(workers).threads_per_worker(1).recycled_memory(bytes).start().unwrap()
}

/// A pipeline whose methods take, return and keep large tensors.
#[derive(Pipeline)]
#[pipeline(init = Keeper::new)]
struct Keeper {
    layer: Linear,
    #[pipeline(skip)]
    kept: Vec<Tensor<1, Int>>,
}

#[ray_zerocopy::remote]
impl Keeper {
    #[remote(skip)]
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(4, 4).init(device), kept: Vec::new() }
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn echo(&self, x: Tensor<1, Int>) -> Tensor<1, Int> {
        x
    }

    pub fn add(&self, x: Tensor<1, Int>, number: i64) -> Tensor<1, Int> {
        x.add_scalar(number)
    }

    pub fn keep(&mut self, x: Tensor<1, Int>) {
        self.kept.push(x);
    }

    pub fn kept(&self, index: usize) -> Tensor<1, Int> {
        self.kept[index].clone()
    }

    #[remote(stream)]
    pub fn count_up(&self, x: Tensor<1, Int>, items: i64) -> impl Iterator<Item = Tensor<1, Int>> + 'static {
        (0..items).map(move |item| x.clone().add_scalar(item))
    }
}

fn model() -> Keeper {
    Keeper::new(&Device::flex())
}

/// Numbers that depend on the seed and on the position.
fn numbers(len: usize, seed: usize) -> Tensor<1, Int> {
    Tensor::from_data(data(len, seed), &Device::flex())
}

fn data(len: usize, seed: usize) -> TensorData {
    TensorData::from(&*(0..len as i32).map(|index| index * 7 + seed as i32).collect::<Vec<_>>())
}

fn assert_numbers(tensor: Tensor<1, Int>, len: usize, seed: usize) {
    // Not `assert_eq`, which would print millions of them.
    assert!(tensor.into_data().as_bytes() == data(len, seed).as_bytes(), "the {len} numbers from {seed} have changed");
}

/// Inodes of the memory that a process has mapped.
fn mapped(pid: u32) -> BTreeSet<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let maps = maps.lines().filter(|line| line.contains(NAME));
    maps.map(|line| line.split_whitespace().nth(4).unwrap().to_owned()).collect()
}

/// Inodes of the memory that a process has descriptors of.
fn open(pid: u32) -> BTreeSet<String> {
    use std::os::unix::fs::MetadataExt;

    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().map(|entry| entry.path());
    let is_ours = |path: &PathBuf| fs::read_link(path).is_ok_and(|file| file.to_string_lossy().starts_with(NAME));
    // Another test may close its own meanwhile.
    let inodes = descriptors.filter(is_ours).filter_map(|path| fs::metadata(path).ok());
    inodes.map(|metadata| metadata.ino().to_string()).collect()
}

#[test]
fn tensors_are_equal_and_memory_does_not_grow() {
    let pool = pool(1, 16 * MIB);
    let tasks = TaskWrapper::on(&pool, &model()).unwrap();
    let pid = tasks.pid().wait().unwrap();
    assert!(mapped(pid).is_empty());
    // From a packet to more than the limit.
    let sizes = [1, 10_000, 17_000, 100_000, 300_000, 1 << 20, 5 << 20];
    let round = |seed: usize| {
        for len in sizes {
            assert_numbers(tasks.echo(numbers(len, seed)).wait().unwrap(), len, seed);
            assert_numbers(tasks.add(numbers(len, seed), 5).wait().unwrap(), len, seed + 5);
        }
    };
    (0..3).for_each(round);
    let segments = mapped(pid);
    assert!((2..=10).contains(&segments.len()), "{segments:?}");
    (3..12).for_each(round);
    let medium = numbers(100_000, 0);
    for _ in 0..300 {
        assert_eq!(tasks.echo(medium.clone()).wait().unwrap().dims(), [100_000]);
    }
    assert_eq!(mapped(pid), segments, "the same memory is used again");
    // This process may have memory of other tests.
    assert!(segments.is_subset(&mapped(std::process::id())));
    assert!(open(pid).is_empty() && segments.is_disjoint(&open(std::process::id())), "descriptors were left open");

    // With the pool, this process gives its memory back.
    drop((tasks, pool));
    eventually("the memory is unmapped", || segments.is_disjoint(&mapped(std::process::id())));
}

#[test]
fn results_that_are_kept_do_not_change() {
    let tasks = TaskWrapper::on(&pool(2, 4 * MIB), &model()).unwrap();
    // More than there is memory for, so that some are sent in other memory.
    let kept: Vec<_> = gather((0..60).map(|seed| tasks.add(numbers(60_000, seed), 1))).wait().unwrap();
    for seed in 0..40 {
        assert_numbers(tasks.echo(numbers(60_000, 1000 + seed)).wait().unwrap(), 60_000, 1000 + seed);
    }
    for (seed, tensor) in kept.into_iter().enumerate() {
        assert_numbers(tensor, 60_000, seed + 1);
    }
}

#[test]
fn arguments_that_an_actor_keeps_do_not_change() {
    let actors = ActorWrapper::on(&pool(1, 8 * MIB), &model()).unwrap().spawn(1).unwrap();
    for seed in 0..50 {
        actors.keep(numbers(50_000, seed)).wait().unwrap();
        assert_numbers(actors.echo(numbers(70_000, 1000 + seed)).wait().unwrap(), 70_000, 1000 + seed);
    }
    for seed in 0..50 {
        assert_numbers(actors.kept(seed).wait().unwrap(), 50_000, seed);
    }
}

#[test]
fn actors_have_the_memory_of_their_pool_or_their_own() {
    let pool = pool(1, 16 * MIB);
    let wrapper = || ActorWrapper::on(&pool, &model()).unwrap();
    let segments = |wrapper: ActorWrapper<Keeper>| {
        let actors = wrapper.spawn(1).unwrap();
        assert_numbers(actors.echo(numbers(50_000, 1)).wait().unwrap(), 50_000, 1);
        mapped(actors.pid().wait().unwrap()).len()
    };
    assert_eq!(segments(wrapper()), 2);
    assert_eq!(segments(wrapper().recycled_memory(0)), 0);
    let own = ActorWrapper::new(&model()).unwrap();
    assert_eq!(segments(own.recycled_memory(MIB)), 2);
    assert_eq!(segments(ActorWrapper::new(&model()).unwrap()), 0);
}

#[test]
fn killed_workers_lose_nothing() {
    const CALLS: usize = 120;
    let pool = pool(2, 32 * MIB);
    let tasks = TaskWrapper::on(&pool, &model()).unwrap().attempts(100);
    let calls: Vec<_> = (0..CALLS).map(|seed| tasks.add(numbers(200_000, seed), 1)).collect();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let results = std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..12 {
                if is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                if let Some(worker) = pool.workers().get(turn % 2) {
                    // It may have ended already.
                    let _gone = kill_process(Pid::from_raw(worker.pid as i32).unwrap(), Signal::KILL);
                }
                std::thread::sleep(std::time::Duration::from_millis(40));
            }
        });
        // They are kept, so that some outlive the worker that has sent them.
        let results: Vec<_> = calls.into_iter().map(|call| call.wait().unwrap()).collect();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        results
    });
    for (seed, tensor) in results.into_iter().enumerate() {
        assert_numbers(tensor, 200_000, seed + 1);
    }
    assert_numbers(tasks.echo(numbers(200_000, 1)).wait().unwrap(), 200_000, 1);
}

#[test]
fn large_items_of_a_stream_arrive_whole() {
    // For 16 items.
    let pool = pool(1, 4 * MIB);
    let tasks = TaskWrapper::on(&pool, &model()).unwrap().stream_buffer(4);
    let pid = tasks.pid().wait().unwrap();
    for seed in 0..5 {
        for (item, tensor) in tasks.count_up(numbers(50_000, seed), 60).enumerate() {
            assert_numbers(tensor.unwrap(), 50_000, seed + item);
        }
    }
    // One that is dropped early, and one whose items are all kept.
    assert_numbers(tasks.count_up(numbers(50_000, 3), 60).next().unwrap().unwrap(), 50_000, 3);
    let kept: Vec<_> = tasks.count_up(numbers(50_000, 9), 60).map(Result::unwrap).collect();
    for (item, tensor) in kept.into_iter().enumerate() {
        assert_numbers(tensor, 50_000, 9 + item);
    }
    assert!((2..=17).contains(&mapped(pid).len()), "{:?}", mapped(pid));
}
