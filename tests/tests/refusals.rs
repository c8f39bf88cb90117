//! Arenas of another pipeline, arguments that cannot be written, actors that die while nothing is asked of them.

#![allow(clippy::unwrap_used, reason = "test code")]

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::error::LoadError;
use ray_zerocopy::{ActorWrapper, CallError, Error, LocalPool, Pipeline, TaskWrapper, share};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{Mill, MillConfig, Unwritable};
use rustix::process::{Pid, Signal, kill_process};

#[derive(Pipeline)]
#[pipeline(init = Post::new)]
struct Post {
    layer: Linear,
}

#[ray_zerocopy::remote]
impl Post {
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

fn mill() -> Mill {
    MillConfig::new(8).init(&Device::flex())
}

fn is_wrong(error: &Error) {
    let Error::Call(CallError::Load { error: LoadError::WrongPipeline { expected, found, .. }, .. }) = error else {
        panic!("{error}")
    };
    assert!(expected.ends_with("Post") && found.ends_with("Mill"), "{error}");
}

#[test]
fn workers_refuse_the_arena_of_another_pipeline_and_go_on() {
    let engine = LocalPool::builder().workers(1).start().unwrap();
    let foreign = TaskWrapper::<Post>::from_arena_on(&engine, share(&mill()).unwrap()).unwrap();
    is_wrong(&foreign.pid().wait().unwrap_err());
    is_wrong(&foreign.pid().wait().unwrap_err());
    let own = TaskWrapper::on(&engine, &Post::new(&Device::flex())).unwrap();
    assert_ne!(own.pid().wait().unwrap(), std::process::id());
}

#[test]
fn actors_are_not_spawned_on_the_arena_of_another_pipeline() {
    let foreign = ActorWrapper::<Post>::from_arena(share(&mill()).unwrap());
    is_wrong(&foreign.spawn(2).unwrap_err());
    assert!(matches!(foreign.load(), Err(Error::Load(LoadError::WrongPipeline { .. }))));
}

#[test]
fn an_argument_that_cannot_be_written_is_an_error_of_the_call() {
    let engine = LocalPool::builder().workers(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &Post::new(&Device::flex())).unwrap();
    let text = tasks.send(Unwritable).wait().unwrap_err().to_string();
    assert!(text.contains("`send`") && text.contains("nobody may write this down"), "{text}");
    tasks.pid().wait().unwrap();
}

#[test]
fn an_actor_killed_while_idle_comes_back_without_its_state() {
    let actors = ActorWrapper::new(&mill()).unwrap().spawn(1).unwrap();
    assert_eq!(actors.count(5).wait().unwrap(), 5);
    let before = actors.pid().wait().unwrap();
    kill_process(Pid::from_raw(before as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the killed actor is gone", || !is_alive(before));
    eventually("another takes its place", || {
        actors.workers().first().is_some_and(|worker| worker.pid != before && is_alive(worker.pid))
    });
    assert_eq!(actors.count(0).wait().unwrap(), 0);
}

#[test]
fn an_actor_that_aborts_is_an_error_and_comes_back() {
    let actors = ActorWrapper::new(&Post::new(&Device::flex())).unwrap().spawn(1).unwrap();
    let before = actors.pid().wait().unwrap();
    let error = actors.abort().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { attempts: 1, is_actor: true, .. })), "{error}");
    assert!(error.to_string().contains("SIGABRT"), "{error}");
    assert_ne!(actors.pid().wait().unwrap(), before);
}
