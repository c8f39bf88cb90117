//! Memory costs of sharing and loading, measured with `/proc` and a counting allocator. There is
//! one test, because the figures are those of the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use burn::tensor::{Device, Tensor};
use ray_zerocopy::{ActorWrapper, TaskWrapper, gather, load, share};
use ray_zerocopy_tests::heap::{self, Counting};
use ray_zerocopy_tests::memory::{eventually, is_alive, rollup};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: usize = 4096;
const MODEL: u64 = (SIZE * SIZE + SIZE) as u64 * 4;

#[test]
fn the_machine_holds_one_copy() {
    let device = Device::flex();
    let model = TestModelConfig::new(SIZE).init(&device);
    // burn initialises parameters at first use. That is not part of the cost of sharing.
    drop((model.layer.weight.val(), model.layer.bias.as_ref().map(|bias| bias.val())));

    // Sharing does not copy the model into the heap: 64 MiB of weights, less than 1 MiB of growth.
    let (arena, growth) = heap::growth(|| share(&model).unwrap());
    assert!(growth < 1 << 20, "sharing took {growth} bytes of heap for {MODEL} bytes of weights");
    assert!(arena.size_bytes() >= MODEL && arena.size_bytes() < MODEL + (1 << 20), "{}", arena.size_bytes());

    // Loading takes less than 256 KiB.
    let before = heap::used();
    let twin = load::<TestModel>(&arena, &device).unwrap().strict().unwrap();
    let growth = heap::used().saturating_sub(before);
    assert!(growth < 1 << 18, "loading took {growth} bytes of heap");
    // Compare bytes and not a sum: flex adds 16 million numbers in parallel, in an order that
    // varies from call to call.
    assert_eq!(twin.layer.weight.val().into_data(), model.layer.weight.val().into_data());
    drop((twin, model));

    let workers = 4;
    let actors = ActorWrapper::<TestModel>::from_arena(arena).threads_per_worker(1).spawn(workers).unwrap();
    let input = Tensor::<2>::ones([1, SIZE], &device);
    gather(actors.iter().map(|actor| actor.forward(input.clone()))).wait().unwrap();
    gather(actors.iter().map(|actor| actor.total())).wait().unwrap();

    let pids: Vec<_> = actors.workers().iter().map(|worker| worker.pid).collect();
    assert_eq!(pids.len(), workers);
    let all: Vec<_> = pids.iter().copied().chain([std::process::id()]).collect();
    let pss: u64 = all.iter().map(|&pid| rollup(pid, "Pss")).sum();
    // One copy for all, and some tens of MiB for the code and stacks of five processes. Two copies
    // would take at least 128 MiB.
    assert!(pss < MODEL * 19 / 10, "{workers} workers and their owner take {pss} bytes for {MODEL} bytes of weights");
    for &pid in &pids {
        let private = rollup(pid, "Anonymous");
        assert!(private < MODEL / 2, "worker {pid} has {private} bytes of its own: a copy of the weights?");
    }

    let report = actors.report().unwrap();
    assert_eq!(report.processes.len(), workers + 1);
    for process in &report.processes[1..] {
        assert!(process.shared > MODEL * 9 / 10, "{report}");
        assert!(process.saved() > process.shared / 2, "{report}");
        assert_eq!(process.copied, 0);
        assert!(process.attach_micros.is_some());
    }
    assert!(report.saved() > MODEL * 2, "{report}");
    let text = report.to_string();
    assert!(text.contains("worker 3") && text.contains("owner"), "{text}");

    // The memory is freed when the actors end.
    drop(actors);
    assert!(pids.iter().all(|&pid| !is_alive(pid)));
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("/memfd:ray-zerocopy").count();
    eventually("the arena is unmapped", || mappings() == 0);

    // Workers of a pool unload a pipeline when its last wrapper is dropped.
    let engine = ray_zerocopy::LocalPool::builder().workers(1).start().unwrap();
    let other = TaskWrapper::on(&engine, &TestModelConfig::new(8).init(&device)).unwrap();
    let pid = other.pid().wait().unwrap();
    let mapped =
        || std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().matches("/memfd:ray-zerocopy").count();
    let alone = mapped();
    let tasks = TaskWrapper::on(&engine, &TestModelConfig::new(SIZE).init(&device)).unwrap();
    tasks.total().wait().unwrap();
    assert!(mapped() > alone);
    drop(tasks);
    eventually("the worker forgets the pipeline", || mapped() == alone);
    other.pid().wait().unwrap();
}
