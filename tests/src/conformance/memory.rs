//! One copy of the weights in host memory, however many processes and devices have them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::{ActorWrapper, Pipeline, load, share};

use super::{Spec, heap};
use crate::memory::mapped;

const SIZE: usize = 2048;
/// 512 MiB: a copy that should not be is larger than what a worker with a driver has anyway.
const LAYERS: usize = 32;
const MODEL: u64 = (LAYERS * (SIZE * SIZE + SIZE) * 4) as u64;

/// Much weight, and little to compute.
#[derive(Pipeline)]
#[pipeline(init = Stack::new)]
pub struct Stack {
    layers: Vec<Linear>,
}

impl Stack {
    fn new(device: &Device) -> Self {
        // Random numbers take long, and equal tensors would be one in the arena.
        let layer = |index: usize| {
            let value = (index + 1) as f64 / (SIZE * LAYERS) as f64;
            LinearConfig::new(SIZE, SIZE).with_initializer(Initializer::Constant { value }).init(device)
        };
        Self { layers: (0..LAYERS).map(layer).collect() }
    }
}

#[ray_zerocopy::remote]
impl Stack {
    /// The forward pass.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}

/// One of these tests at a time: one looks at the heap of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most that a process ever had in memory, shared pages too.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// While weights go to the device, this process's heap does not get them.
pub fn no_second_copy_in_the_heap(spec: &Spec, device: &Device) {
    let _alone = alone();
    let arena = share(&Stack::new(&Device::flex())).unwrap();
    // The device's own beginnings are not the upload's.
    Tensor::<1>::ones([1], device).into_data();
    let (loaded, growth) = heap::growth(|| load::<Stack>(&arena, device).unwrap());
    println!("loading {MODEL} bytes on `{}` took {growth} bytes of heap", spec.name);
    assert!(growth < MODEL / 8, "loading {MODEL} bytes on `{}` took {growth} bytes of heap", spec.name);
    assert_eq!(loaded.copied().is_empty(), spec.borrows);
}

/// Two workers on one device: the arena is in memory once, and no page of it is anybody's own.
pub fn workers_share_the_pages(spec: &Spec, _: &Device) {
    let _alone = alone();
    let stack = Stack::new(&Device::flex());
    let x = Tensor::<2>::ones([1, SIZE], &Device::flex()) / SIZE as f32;
    let expected = stack.forward(x.clone()).into_data();
    let arena = share(&stack).unwrap();
    drop(stack);
    let inode = rustix::fs::fstat(arena.fd().unwrap()).unwrap().st_ino;
    let len = arena.size_bytes();
    let actors =
        ActorWrapper::<Stack>::from_arena(arena).device(spec.name).unwrap().threads_per_worker(1).spawn(2).unwrap();
    let mut pss = mapped(std::process::id(), inode).iter().map(|part| part.figure("Pss")).sum::<u64>();
    for actor in actors.iter() {
        spec.same(actor.forward(x.clone()).wait().unwrap().into_data(), expected.clone());
    }
    for worker in actors.workers() {
        let parts = mapped(worker.pid, inode);
        let sum = |field| parts.iter().map(|part| part.figure(field)).sum::<u64>();
        assert!(sum("Rss") > MODEL / 2, "worker {} has read {} bytes of the arena", worker.index, sum("Rss"));
        assert_eq!(sum("Anonymous"), 0, "worker {} has pages of the arena of its own", worker.index);
        pss += sum("Pss");
        let private = crate::memory::rollup(worker.pid, "Anonymous");
        let most = peak(worker.pid);
        println!("worker {} on `{}`: {private} bytes of its own, {most} at most in all", worker.index, spec.name);
        // In tenths of the model. A software adapter's memory is the worker's own: that copy may be. What drivers need to upload
        // may not become another, now or on the way.
        let (own, all) = if spec.borrows { (3, 14) } else { (14, 28) };
        assert!(private < MODEL * own / 10, "worker {} has {private} bytes of its own: a copy?", worker.index);
        assert!(most < MODEL * all / 10, "worker {} had {most} bytes when it had most: a copy?", worker.index);
    }
    assert!(pss < len * 11 / 10, "{pss} bytes of memory for an arena of {len}");
    let report = actors.report().unwrap();
    for process in &report.processes[1..] {
        assert_eq!(process.copied, if spec.borrows { 0 } else { MODEL }, "{report}");
    }
}
