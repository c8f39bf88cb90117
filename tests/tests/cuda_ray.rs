//! GPUs on a Ray cluster, with a driver of the tests' own: which GPU an actor sees, and one copy of the weights per GPU.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor};
use ray_zerocopy::ray::{Cluster, Options};
use ray_zerocopy::{ActorWrapper, TaskWrapper, gather};
use ray_zerocopy_tests::gpu_weights::{CORNERS, MODEL, SIZE, Weights, copies};
use ray_zerocopy_tests::memory::eventually;
use ray_zerocopy_tests::stand_in::{allocations, reruns};

fn cluster() -> Cluster {
    Cluster::local().cpus(4).gpus(2).object_store(200 << 20).quiet().start().unwrap()
}

#[test]
fn actors_share_a_copy_on_each_gpu() {
    if !reruns("actors_share_a_copy_on_each_gpu", &[("STAND_IN_DEVICES", "2")]) {
        return;
    }
    let cluster = cluster();
    let model = Weights::new(&Device::flex());
    let halves = cluster.with(Options::default().cpus(0.1).gpus(0.5));
    let actors = ActorWrapper::on(&halves, &model).unwrap().device("cuda:0").unwrap().strict().spawn(4).unwrap();
    for corners in gather(actors.iter().map(|actor| actor.corners())).wait().unwrap() {
        assert_eq!(corners, CORNERS);
    }
    let visible = gather(actors.iter().map(|actor| actor.visible_gpus())).wait().unwrap();
    let visible: BTreeSet<_> = visible.into_iter().map(|gpus| gpus.unwrap()).collect();
    assert_eq!(visible.into_iter().collect::<Vec<_>>(), ["0", "1"], "two actors on each GPU, which calls it `cuda:0`");
    assert_eq!(copies(), [MODEL, MODEL], "{:?}", allocations());
    let report = actors.report().unwrap().to_string();
    for gpu in ["GPU-01010101-", "GPU-02020202-"] {
        assert!(report.contains(&format!("on {gpu}")), "{report}");
    }

    // This release of Ray hides no GPU from an actor that requests none. It finds the copy of the first one.
    let without = cluster.with(Options::default().cpus(0.1));
    let more = ActorWrapper::on(&without, &model).unwrap().device("cuda:0").unwrap().spawn(1).unwrap();
    assert_eq!(more.actor(0).corners().wait().unwrap(), CORNERS);
    assert_eq!(more.actor(0).visible_gpus().wait().unwrap(), None);
    assert_eq!(copies(), [MODEL, MODEL], "{:?}", allocations());
    drop((actors, more));
    eventually("the copies are freed", || copies().is_empty());
}

#[test]
fn task_process_whose_kernel_failed_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let fault = folder.path().join("fault");
    if !reruns("task_process_whose_kernel_failed_is_replaced", &[("STAND_IN_FAULT", fault.to_str().unwrap())]) {
        return;
    }
    let fault = std::path::PathBuf::from(std::env::var_os("STAND_IN_FAULT").unwrap());
    let cluster = cluster();
    let whole = cluster.with(Options::default().cpus(0.1).gpus(1.0));
    let tasks = TaskWrapper::on(&whole, &Weights::new(&Device::flex())).unwrap().device("cuda:0").unwrap();
    let x = Tensor::<2>::ones([2, SIZE], &Device::flex());
    tasks.forward(x.clone()).wait().unwrap();
    let before = tasks.pid().wait().unwrap();
    std::fs::write(&fault, "").unwrap();
    let error = tasks.forward(x.clone()).wait().unwrap_err().to_string();
    std::fs::remove_file(&fault).unwrap();
    assert!(error.contains("cannot use the GPU any more"), "{error}");
    eventually("another process computes", || {
        tasks.forward(x.clone()).wait().is_ok() && tasks.pid().wait().is_ok_and(|pid| pid != before)
    });
}
