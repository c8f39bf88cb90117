//! Host memory holds one copy of the weights, for any number of processes.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use ray_zerocopy::holder::Holder;
use ray_zerocopy::{ActorWrapper, Pipeline, load, share};

use super::Spec;
use crate::heap;
use crate::memory::{eventually, is_alive, mapped};

const SIZE: usize = 2048;
/// 512 MiB of weights: more than the private memory of a worker with a GPU driver, so that a second
/// copy shows.
const LAYERS: usize = 32;
const MODEL: u64 = (LAYERS * (SIZE * SIZE + SIZE) * 4) as u64;

/// A pipeline with many weights and little computation.
#[derive(Pipeline)]
#[pipeline(init = Stack::new)]
pub struct Stack {
    layers: Vec<Linear>,
}

impl Stack {
    fn new(device: &Device) -> Self {
        // Random numbers would take long, and equal tensors would be stored once.
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

/// Runs one of these tests at a time, because one measures the heap of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Peak resident memory of a process, including shared pages (`VmHWM`).
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// An upload to the device does not copy the weights into the heap of this process.
pub fn no_second_copy_in_the_heap(spec: &Spec, device: &Device) {
    let _alone = alone();
    let arena = share(&Stack::new(&Device::flex())).unwrap();
    // Initialise the device first, so that its memory is not counted.
    Tensor::<1>::ones([1], device).into_data();
    let (loaded, growth) = heap::growth(|| load::<Stack>(&arena, device).unwrap());
    println!("loading {MODEL} bytes on `{}` took {growth} bytes of heap", spec.name);
    assert!(growth < MODEL / 8, "loading {MODEL} bytes on `{}` took {growth} bytes of heap", spec.name);
    assert_eq!(loaded.copied().is_empty(), spec.borrows);
}

/// Two workers on one device share all pages of the arena, and neither has private ones.
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
        // Where processes share a copy on the device, one of them has read the arena.
        let reads = spec.is_host || !spec.borrows;
        assert!(!reads || sum("Rss") > MODEL / 2, "worker {} has read {} bytes of the arena", worker.index, sum("Rss"));
        assert_eq!(sum("Anonymous"), 0, "worker {} has pages of the arena of its own", worker.index);
        pss += sum("Pss");
        let private = crate::memory::rollup(worker.pid, "Anonymous");
        let most = peak(worker.pid);
        println!("worker {} on `{}`: {private} bytes of its own, {most} at most in all", worker.index, spec.name);
        // In tenths of the model. The memory of a software adapter is private to the worker, so one
        // copy is allowed there. Staging buffers of the driver must not add another, now or at the
        // peak.
        let (own, all) = if spec.is_host { (3, 14) } else { (14, 28) };
        assert!(private < MODEL * own / 10, "worker {} has {private} bytes of its own: a copy?", worker.index);
        assert!(most < MODEL * all / 10, "worker {} had {most} bytes when it had most: a copy?", worker.index);
    }
    assert!(pss < len * 11 / 10, "{pss} bytes of memory for an arena of {len}");
    let report = actors.report().unwrap();
    for process in &report.processes[1..] {
        assert_eq!(process.copied, if spec.borrows { 0 } else { MODEL }, "{report}");
    }
}

/// A holder keeps the copy on the device when no process uses it.
pub fn holder_keeps_the_copy(spec: &Spec, _: &Device) {
    if spec.is_host || !spec.borrows {
        return;
    }
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("stack.bpk");
    share(&Stack::new(&Device::flex())).unwrap().save(&path).unwrap();
    let holder = Holder::builder().build();
    let arena = holder.keep(&path, |_| {}).unwrap();
    for round in 0..2 {
        let actors = ActorWrapper::<Stack>::from_arena(arena.clone()).device(spec.name).unwrap().spawn(1).unwrap();
        let x = Tensor::<2>::ones([1, SIZE], &Device::flex());
        assert_eq!(actors.actor(0).forward(x).wait().unwrap().dims(), [1, SIZE]);
        let report = actors.report().unwrap();
        let memory = report.processes[1].device.as_ref().unwrap();
        assert_eq!(memory.is_uploaded, round == 0, "only the first worker uploads: {report}");
        let pid = actors.workers()[0].pid;
        drop(actors);
        eventually("the worker ends", || !is_alive(pid));
    }
    assert!(holder.release(&path).unwrap());
}
