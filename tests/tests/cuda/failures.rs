//! GPUs that fail, or refuse: what the caller learns, and that others go on.

use std::process::Command;
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use ray_zerocopy::error::LoadError;
use ray_zerocopy::{ActorWrapper, Arena, CallError, Error, device, load};
use ray_zerocopy_tests::gpu_weights::{CORNERS, Weights, copies};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use ray_zerocopy_tests::stand_in::{allocations, output_of, reruns};

use super::sharing::{arena, kill};

fn model() -> ActorWrapper<TestModel> {
    ActorWrapper::new(&TestModelConfig::new(64).init(&Device::flex())).unwrap().device("cuda:0").unwrap()
}

fn rows() -> Tensor<2> {
    Tensor::ones([8, 64], &Device::flex())
}

#[test]
fn gpu_that_another_process_has_alone_is_named() {
    if !reruns("failures::gpu_that_another_process_has_alone_is_named", &[("STAND_IN_CONTEXT", "46")]) {
        return;
    }
    let error = load::<Weights>(&arena(), &device("cuda:0").unwrap()).unwrap_err();
    let LoadError::Upload { reason } = &error else { panic!("{error}") };
    assert!(
        reason.contains("CUDA_ERROR_DEVICE_UNAVAILABLE to cuDevicePrimaryCtxRetain: another process has the GPU"),
        "{reason}"
    );
    assert!(reason.contains("nvidia-smi -c 0"), "{reason}");
}

#[test]
fn kernel_for_another_architecture_is_an_error_of_the_call() {
    if !reruns("failures::kernel_for_another_architecture_is_an_error_of_the_call", &[("STAND_IN_MODULE", "209")]) {
        return;
    }
    let actors = model().spawn(1).unwrap();
    let error = actors.actor(0).forward(rows()).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Panicked { .. } | CallError::Wire { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("NO_BINARY_FOR_GPU") || text.contains("no kernel image"), "{text}");
}

#[test]
fn worker_killed_in_a_kernel_is_replaced() {
    if !reruns("failures::worker_killed_in_a_kernel_is_replaced", &[("STAND_IN_KERNEL_MS", "300")]) {
        return;
    }
    let actors = model().spawn(2).unwrap();
    let [first, second] = [0, 1].map(|at| actors.actor(at));
    [first.forward(rows()), second.forward(rows())].into_iter().for_each(|call| drop(call.wait().unwrap()));
    let (killed, other) = (first.forward(rows()), second.forward(rows()));
    std::thread::sleep(Duration::from_millis(100));
    kill(actors.workers()[0].pid);
    let error = killed.wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { .. })), "{error}");
    other.wait().unwrap();
    // The next call is that of a new process.
    first.forward(rows()).wait().unwrap();
}

#[test]
fn worker_whose_kernel_failed_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let fault = folder.path().join("fault");
    let variables = [("STAND_IN_FAULT", fault.to_str().unwrap())];
    if !reruns("failures::worker_whose_kernel_failed_is_replaced", &variables) {
        return;
    }
    let fault = std::path::PathBuf::from(std::env::var_os("STAND_IN_FAULT").unwrap());
    let actors = model().spawn(2).unwrap();
    for actor in actors.iter() {
        actor.forward(rows()).wait().unwrap();
    }
    let pids: Vec<u32> = actors.workers().iter().map(|worker| worker.pid).collect();
    std::fs::write(&fault, "").unwrap();
    let error = actors.actor(0).forward(rows()).wait().unwrap_err();
    std::fs::remove_file(&fault).unwrap();
    let text = error.to_string();
    assert!(text.contains("ILLEGAL_ADDRESS") || text.contains("status 700"), "{text}");
    assert!(text.contains("cannot use the GPU any more"), "{text}");
    // A process whose kernel has failed cannot use the GPU any more. The other one can, and so can the next one.
    actors.actor(1).forward(rows()).wait().unwrap();
    actors.actor(0).forward(rows()).wait().unwrap();
    let now: Vec<u32> = actors.workers().iter().map(|worker| worker.pid).collect();
    assert!(now[0] != pids[0] && now[1] == pids[1], "{pids:?} before, {now:?} after");
}

#[test]
fn each_gpu_has_a_copy() {
    if !reruns("failures::each_gpu_has_a_copy", &[("STAND_IN_DEVICES", "2")]) {
        return;
    }
    let arena = arena();
    let on = |name: &str| ActorWrapper::<Weights>::from_arena(arena.clone()).device(name).unwrap().spawn(2).unwrap();
    let pools = ["cuda:0", "cuda:1"].map(on);
    for actor in pools.iter().flat_map(|pool| pool.iter()) {
        assert_eq!(actor.corners().wait().unwrap(), CORNERS);
    }
    assert_eq!(copies().len(), 2, "{:?}", allocations());
    let text = device("cuda:2").unwrap_err().to_string();
    assert!(text.ends_with("found 2 CUDA devices, numbers 0 to 1"), "{text}");

    // A process that sees only the second one calls it `cuda:0`, and finds its copy.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bpk");
    arena.save(&path).unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "failures::copy_of_a_visible_gpu_is_found", "--nocapture"]);
    let output = again.env("CUDA_VISIBLE_DEVICES", "1").env(FINDS, &path).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("found the copy"), "{said}");
    assert_eq!(copies().len(), 2);
}

/// Environment variable of the process that `each_gpu_has_a_copy` starts: a file with the weights.
const FINDS: &str = "RAY_ZEROCOPY_TEST_FINDS_A_COPY";

#[test]
fn copy_of_a_visible_gpu_is_found() {
    let Some(path) = std::env::var_os(FINDS) else { return };
    let loaded = load::<Weights>(&Arena::open(path).unwrap(), &device("cuda:0").unwrap()).unwrap();
    assert!(!loaded.device_memory().unwrap().is_uploaded);
    assert_eq!(loaded.corners(), CORNERS);
    println!("found the copy");
}

#[test]
fn process_that_ends_before_its_kernels_is_quiet() {
    let slow = [("STAND_IN_KERNEL_MS", "20"), ("STAND_IN_END_MS", "300")];
    if let Some(said) = output_of("failures::process_that_ends_before_its_kernels_is_quiet", &slow) {
        assert!(!said.contains("panicked") && !said.contains("DEINITIALIZED"), "{said}");
        return;
    }
    let device = device("cuda:0").unwrap();
    let start = Tensor::<1>::ones([16], &device);
    // Queued, and not waited for. Whatever is dropped is freed after the kernels that use it.
    let mut sums: Vec<_> = (0..40).map(|number| start.clone() + number as f32).collect();
    sums.clear();
}
