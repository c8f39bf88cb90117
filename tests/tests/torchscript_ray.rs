//! TorchScript modules on a Ray cluster, with the same wrappers and outputs as on local workers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::sync::LazyLock;

use burn::tensor::{Device, Tensor};
use ray_zerocopy::jit::{JitActorWrapper, JitTaskWrapper, TorchScript, Values};
use ray_zerocopy::ray::{Cluster, ClusterTarget, Options};
use ray_zerocopy::{CallError, Error};
use ray_zerocopy_tests::torchscript::{assert_close, expected, module, open, rows, widened};

static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::local().cpus(4).object_store(200 << 20).quiet().start().unwrap());

fn site() -> ClusterTarget {
    CLUSTER.with(Options::default().cpus(0.1))
}

#[test]
fn actors_and_tasks_answer_as_pytorch_does() {
    let script = open("mlp");
    let actors = JitActorWrapper::on(&site(), &script).unwrap().strict().spawn(2).unwrap();
    for actor in actors.iter() {
        assert_close(actor.run([("rows", rows([3, 8]))]).wait().unwrap().data("output").unwrap(), &expected("mlp"));
    }
    let tasks = JitTaskWrapper::on(&site(), &script).unwrap().strict();
    assert_close(tasks.run([("rows", rows([3, 8]))]).wait().unwrap().data("output").unwrap(), &expected("mlp"));
    let error = tasks.run([("columns", rows([3, 8]))]).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Graph { .. })), "{error}");
    assert!(error.to_string().contains("input `columns` is not one of the module's"), "{error}");
}

#[test]
fn large_module_lies_only_in_the_store() {
    const WIDTH: usize = 1024;
    let folder = tempfile::tempdir().unwrap();
    let script = TorchScript::open(widened(&module("mlp"), WIDTH, folder.path())).unwrap();
    let wrapper = JitActorWrapper::on(&site(), &script).unwrap().strict();
    assert!(wrapper.arena().fd().is_none(), "the arena is in the store");
    let actors = wrapper.spawn(2).unwrap();
    let run =
        |actor: usize| actors.actor(actor).run([("rows", rows([2, WIDTH]))]).wait().unwrap().data("output").unwrap();
    assert_eq!(run(0), run(1));
    let here = script.load("cpu").unwrap().run([("rows", rows([2, WIDTH]))]).unwrap().data("output").unwrap();
    let here: Vec<f64> = here.iter::<f64>().collect();
    assert_close(run(0), &here);
    let report = actors.report().unwrap();
    assert!(report.processes.iter().all(|process| process.copied == 0), "{report}");
}

#[test]
fn module_state_is_private_to_each_worker() {
    let script = open("counter");
    let actors = JitActorWrapper::on(&site(), &script).unwrap().spawn(2).unwrap();
    let calls = |outputs: Values| outputs.data("output.1").unwrap().iter::<i64>().next().unwrap();
    let run = |actor: usize| calls(actors.actor(actor).run([("rows", rows([3, 4]))]).wait().unwrap());
    assert_eq!([run(0), run(0), run(1), run(0)], [1, 2, 1, 3]);
}

/// A write that LibTorch's alias analysis does not find goes to the store, which is mapped
/// read-only.
#[test]
fn stray_write_kills_only_that_worker() {
    let wrapper = JitActorWrapper::on(&site(), &open("hidden")).unwrap();
    let actors = wrapper.spawn(1).unwrap();
    let others = JitActorWrapper::on(&site(), &open("mlp")).unwrap().spawn(1).unwrap();
    let error = actors.run([("rows", Tensor::<1>::ones([4], &Device::flex()))]).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { .. })), "{error:?}");
    wrapper.arena().verify().unwrap();
    assert_close(others.run([("rows", rows([3, 8]))]).wait().unwrap().data("output").unwrap(), &expected("mlp"));
}
