//! What it costs, by the kernel's own figures and an allocator that counts. One test: the figures are the process's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::tensor::{Device, Tensor};
use ray_zerocopy::{ActorWrapper, TaskWrapper, gather, load, share};
use ray_zerocopy_tests::memory::{eventually, is_alive, rollup};
use ray_zerocopy_tests::models::{Mill, MillConfig};

/// The system's allocator, with a count of the bytes that are in use and of the most that ever were.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to `System` as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(USED.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: usize = 4096;
const MODEL: u64 = (SIZE * SIZE + SIZE) as u64 * 4;

#[test]
fn the_machine_holds_one_copy() {
    let device = Device::flex();
    let mill = MillConfig::new(SIZE).init(&device);
    // burn makes parameters at first use: these are not what sharing takes.
    drop((mill.stone.weight.val(), mill.stone.bias.as_ref().map(|bias| bias.val())));

    // Sharing does not hold the model a second time in the heap: 64 MiB of weights, less than 1 MiB of growth.
    let before = USED.load(Relaxed);
    PEAK.store(before, Relaxed);
    let arena = share(&mill).unwrap();
    let growth = PEAK.load(Relaxed) - before;
    assert!(growth < 1 << 20, "sharing took {growth} bytes of heap for {MODEL} bytes of weights");
    assert!(arena.size_bytes() >= MODEL && arena.size_bytes() < MODEL + (1 << 20), "{}", arena.size_bytes());

    // Loading takes next to nothing.
    let before = USED.load(Relaxed);
    let twin = load::<Mill>(&arena, &device).unwrap().strict().unwrap();
    let growth = USED.load(Relaxed).saturating_sub(before);
    assert!(growth < 1 << 18, "loading took {growth} bytes of heap");
    // The bytes, not a sum of them: flex adds up 16 million numbers in parallel, in an order that varies from call to call.
    assert_eq!(twin.stone.weight.val().into_data(), mill.stone.weight.val().into_data());
    drop((twin, mill));

    let workers = 4;
    let actors = ActorWrapper::<Mill>::from_arena(arena).threads_per_worker(1).spawn(workers).unwrap();
    let corn = Tensor::<2>::ones([1, SIZE], &device);
    gather(actors.iter().map(|actor| actor.grind(corn.clone()))).wait().unwrap();
    gather(actors.iter().map(|actor| actor.total())).wait().unwrap();

    let pids: Vec<_> = actors.workers().iter().map(|worker| worker.pid).collect();
    assert_eq!(pids.len(), workers);
    let all: Vec<_> = pids.iter().copied().chain([std::process::id()]).collect();
    let pss: u64 = all.iter().map(|&pid| rollup(pid, "Pss")).sum();
    // One copy for all, and some tens of MiB for five processes' code and stacks: two copies would be 128 MiB and more.
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

    // Everything goes back when the actors do.
    drop(actors);
    assert!(pids.iter().all(|&pid| !is_alive(pid)));
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("/memfd:ray-zerocopy").count();
    eventually("the arena is unmapped", || mappings() == 0);

    // Workers that live on forget a pipeline when its last wrapper is dropped.
    let engine = ray_zerocopy::LocalPool::builder().workers(1).start().unwrap();
    let other = TaskWrapper::on(&engine, &MillConfig::new(8).init(&device)).unwrap();
    let pid = other.pid().wait().unwrap();
    let mapped =
        || std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().matches("/memfd:ray-zerocopy").count();
    let alone = mapped();
    let tasks = TaskWrapper::on(&engine, &MillConfig::new(SIZE).init(&device)).unwrap();
    tasks.total().wait().unwrap();
    assert!(mapped() > alone);
    drop(tasks);
    eventually("the worker forgets the pipeline", || mapped() == alone);
    other.pid().wait().unwrap();
}
