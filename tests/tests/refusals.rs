//! Errors for arenas of another pipeline and for arguments that cannot be serialized, and deaths of
//! idle actors.

#![allow(clippy::unwrap_used, reason = "test code")]

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::error::LoadError;
use ray_zerocopy::{ActorWrapper, CallError, Error, LocalPool, Pipeline, TaskWrapper, share};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig, Unwritable};
use rustix::process::{Pid, Signal, kill_process};

#[derive(Pipeline)]
#[pipeline(init = RefusingModel::new)]
struct RefusingModel {
    layer: Linear,
}

#[ray_zerocopy::remote]
impl RefusingModel {
    pub fn new(device: &Device) -> Self {
        Self { layer: LinearConfig::new(2, 2).init(device) }
    }

    pub fn send(&self, _secret: Unwritable) -> u32 {
        std::process::id()
    }

    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn abort(&self) {
        std::process::abort()
    }
}

fn model() -> TestModel {
    TestModelConfig::new(8).init(&Device::flex())
}

fn is_wrong(error: &Error) {
    let Error::Call(CallError::Load { error: LoadError::WrongPipeline { expected, found, .. }, .. }) = error else {
        panic!("{error}")
    };
    assert!(expected.ends_with("RefusingModel") && found.ends_with("TestModel"), "{error}");
}

#[test]
fn workers_refuse_the_arena_of_another_pipeline() {
    let engine = LocalPool::builder().workers(1).start().unwrap();
    let foreign = TaskWrapper::<RefusingModel>::from_arena_on(&engine, share(&model()).unwrap()).unwrap();
    is_wrong(&foreign.pid().wait().unwrap_err());
    is_wrong(&foreign.pid().wait().unwrap_err());
    let own = TaskWrapper::on(&engine, &RefusingModel::new(&Device::flex())).unwrap();
    assert_ne!(own.pid().wait().unwrap(), std::process::id());
}

#[test]
fn actors_refuse_the_arena_of_another_pipeline() {
    let foreign = ActorWrapper::<RefusingModel>::from_arena(share(&model()).unwrap());
    is_wrong(&foreign.spawn(2).unwrap_err());
    assert!(matches!(foreign.load(), Err(Error::Load(LoadError::WrongPipeline { .. }))));
}

#[test]
fn unwritable_argument_is_a_call_error() {
    let engine = LocalPool::builder().workers(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &RefusingModel::new(&Device::flex())).unwrap();
    let text = tasks.send(Unwritable).wait().unwrap_err().to_string();
    assert!(text.contains("`send`") && text.contains("this type cannot be serialized"), "{text}");
    tasks.pid().wait().unwrap();
}

#[test]
fn actor_killed_while_idle_loses_its_state() {
    let actors = ActorWrapper::new(&model()).unwrap().spawn(1).unwrap();
    assert_eq!(actors.count(5).wait().unwrap(), 5);
    let before = actors.pid().wait().unwrap();
    kill_process(Pid::from_raw(before as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the killed actor is gone", || !is_alive(before));
    eventually("another process takes its place", || {
        actors.workers().first().is_some_and(|worker| worker.pid != before && is_alive(worker.pid))
    });
    assert_eq!(actors.count(0).wait().unwrap(), 0);
}

#[test]
fn abort_of_an_actor_is_an_error_and_restarts() {
    let actors = ActorWrapper::new(&RefusingModel::new(&Device::flex())).unwrap().spawn(1).unwrap();
    let before = actors.pid().wait().unwrap();
    let error = actors.abort().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { attempts: 1, is_actor: true, .. })), "{error}");
    assert!(error.to_string().contains("SIGABRT"), "{error}");
    assert_ne!(actors.pid().wait().unwrap(), before);
}
