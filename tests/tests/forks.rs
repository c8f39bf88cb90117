//! Computation in children of `fork`, on pipelines that the parent loaded and on pipelines that the
//! child loads.
//!
//! rayon's threads do not exist in the child, so a computation that waits for them would hang. Each
//! child therefore has a watchdog.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]
#![allow(unsafe_code, reason = "only `pre_exec` runs code in a child of `fork`")]

use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use ray_zerocopy::__private::ForkMutex;
use ray_zerocopy::jit::{JitActorWrapper, TracedGraph, trace};
use ray_zerocopy::{Arena, Pipeline, load, share};
use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Pid, Signal, kill_process};

/// 4 MiB of weights: enough that every kernel and the checksums use all threads.
#[derive(Pipeline)]
#[pipeline(init = Wide::new)]
struct Wide {
    layer: Linear,
}

impl Wide {
    fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(1024, 1024).init(device) }
    }

    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        burn::tensor::activation::softmax(self.layer.forward(rows), 1)
    }
}

fn rows() -> Tensor<2> {
    Tensor::<1>::from_floats([0.001; 1], &Device::flex()).reshape([1, 1]).expand([128, 1024])
}

fn data(tensor: Tensor<2>) -> TensorData {
    tensor.into_data()
}

fn graph(model: &Wide) -> TracedGraph {
    let example = Tensor::<2>::ones([3, 1024], &Device::flex());
    let tracer = trace(model).input("rows", example).symbol("batch", [("rows", 0)]);
    tracer.forward(|model, inputs| Ok(model.forward(inputs.float::<2>("rows")?))).unwrap()
}

/// Runs `work` in a child of `fork` and returns its text. A child that does not end is killed, and
/// the test fails.
fn in_a_fork(work: impl FnOnce() -> String + Send + 'static) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (started, said) = (folder.path().join("started"), folder.path().join("said"));
    let (pid_at, said_at) = (started.clone(), said.clone());
    let child = std::thread::spawn(move || {
        let mut command = Command::new("true");
        let work = Mutex::new(Some(work));
        // SAFETY: the child writes files, allocates and starts threads. glibc allows that in a
        // child of a process with threads: its heap and its loader are usable there.
        unsafe {
            command.pre_exec(move || {
                std::fs::write(&pid_at, std::process::id().to_string())?;
                let work = work.lock().unwrap().take().expect("it runs once");
                let said = catch_unwind(AssertUnwindSafe(work));
                std::fs::write(&said_at, said.unwrap_or_else(|_| "it panicked".to_owned()))
            })
        };
        // Returns when the child has executed its program, which it does after its work.
        command.status().unwrap()
    });
    let ended = catch_unwind(AssertUnwindSafe(|| eventually("the forked child computes", || child.is_finished())));
    if ended.is_err() {
        kill(&started);
        panic!("the forked child never ended");
    }
    assert!(child.join().unwrap().success());
    std::fs::read_to_string(said).unwrap()
}

fn kill(pid_at: &Path) {
    let pid = std::fs::read_to_string(pid_at).unwrap().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn same(found: &TensorData, expected: &TensorData) -> String {
    if found == expected { "the same".to_owned() } else { "another answer".to_owned() }
}

#[test]
fn graph_of_the_parent_runs_in_the_child() {
    let model = Wide::new(&Device::flex());
    let mut replay = graph(&model).load("cpu").unwrap();
    let expected = replay.run([("rows", rows())]).unwrap().data("output").unwrap();
    let said = in_a_fork(move || {
        let found = replay.run([("rows", rows())]).map(|outputs| outputs.data("output").unwrap());
        found.map_or_else(|error| error.to_string(), |found| same(&found, &expected))
    });
    assert_eq!(said, "the same");
}

#[test]
fn pipeline_of_the_parent_computes_in_the_child() {
    let arena = share(&Wide::new(&Device::flex())).unwrap();
    let loaded = load::<Wide>(&arena, &Device::flex()).unwrap();
    let expected = data(loaded.forward(rows()));
    assert_eq!(in_a_fork(move || same(&data(loaded.forward(rows())), &expected)), "the same");
}

#[test]
fn a_child_verifies_shares_loads_and_traces() {
    let model = Wide::new(&Device::flex());
    let wrapper = JitActorWrapper::new(&graph(&model));
    let arena = share(&model).unwrap();
    arena.verify().unwrap();
    let expected = data(model.forward(rows()));
    let said = in_a_fork(move || {
        arena.verify().unwrap();
        let again: Arena = share(&load::<Wide>(&arena, &Device::flex()).unwrap().into_inner()).unwrap();
        let loaded = load::<Wide>(&again, &Device::flex()).unwrap();
        let traced = graph(&loaded).load("cpu").unwrap().run([("rows", rows())]).unwrap().data("output").unwrap();
        let wrapped = wrapper.load().unwrap().run([("rows", rows())]).unwrap().data("output").unwrap();
        let answers = [data(loaded.forward(rows())), traced, wrapped];
        answers.map(|found| same(&found, &expected)).join(", ")
    });
    assert_eq!(said, "the same, the same, the same");
}

#[test]
fn threads_and_forks_of_a_child_compute_too() {
    let model = Wide::new(&Device::flex());
    let expected = data(model.forward(rows()));
    let said = in_a_fork(move || {
        let (on_thread, in_fork) = (expected.clone(), expected);
        let arena = share(&model).unwrap();
        let there = arena.clone();
        let thread = std::thread::spawn(move || {
            let loaded = load::<Wide>(&there, &Device::flex()).unwrap();
            same(&data(loaded.forward(rows())), &on_thread)
        });
        let thread = thread.join().unwrap();
        let fork = in_a_fork(move || {
            let loaded = load::<Wide>(&arena, &Device::flex()).unwrap();
            same(&data(loaded.forward(rows())), &in_fork)
        });
        format!("{thread}, {fork}")
    });
    assert_eq!(said, "the same, the same");
}

#[test]
fn user_code_calls_after_fork_once_per_thread() {
    let model = Wide::new(&Device::flex());
    let expected = data(model.forward(rows()));
    let said = in_a_fork(move || {
        ray_zerocopy::after_fork();
        same(&data(model.forward(rows())), &expected)
    });
    assert_eq!(said, "the same");
}

#[test]
fn lock_held_at_fork_is_an_error_in_the_child() {
    let lock: &'static ForkMutex<u8> = Box::leak(Box::new(ForkMutex::new(7)));
    let held = lock.lock().unwrap();
    let said = in_a_fork(|| lock.lock().map_or_else(|error| error.to_string(), |value| value.to_string()));
    assert!(said.starts_with("this process was forked while another thread computed with it"), "{said}");
    drop(held);
    assert_eq!(in_a_fork(|| lock.lock().unwrap().to_string()), "7");
    assert_eq!(*lock.lock().unwrap(), 7);
}
