//! The Ray engine when workers die, handles are dropped, and panics unwind: on one cluster, in one
//! process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use ray_zerocopy::ray::{Cluster, ClusterTarget, Options};
use ray_zerocopy::{ActorWrapper, Actors, CallError, Error, Pipeline, TaskWrapper, gather};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::local().cpus(6).object_store(200 << 20).quiet().start().unwrap());

fn site() -> ClusterTarget {
    CLUSTER.with(Options::default().cpus(0.1))
}

fn model() -> TestModel {
    TestModelConfig::new(8).init(&Device::flex())
}

fn actors(count: usize) -> Actors<TestModel> {
    ActorWrapper::on(&site(), &model()).unwrap().spawn(count).unwrap()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

/// Runs `work` on another thread, and panics if it does not return within a minute.
fn within_a_minute<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, ended) = channel();
    std::thread::spawn(move || drop(done.send(work())));
    ended.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("it hangs, or panicked: {what}"))
}

/// A waker that runs a closure on the waking thread.
struct Once(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Once {
    fn wake(self: Arc<Self>) {
        let work = self.0.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
    }
}

#[test]
fn last_handle_may_be_dropped_in_a_waker() {
    let actors = actors(1);
    let pid = actors.pid().wait().unwrap();
    let mut pending = actors.sleep(300);
    let (dropped, is_dropped) = channel();
    let work = move || {
        drop(actors);
        dropped.send(()).unwrap();
    };
    let waker = Waker::from(Arc::new(Once(Mutex::new(Some(Box::new(work))))));
    let polled = Pin::new(&mut pending).poll(&mut Context::from_waker(&waker));
    assert!(matches!(polled, Poll::Pending));
    is_dropped.recv_timeout(Duration::from_secs(60)).expect("the handle is dropped");
    assert_eq!(pending.wait().unwrap(), pid);
    eventually("the actor ends", || !is_alive(pid));
    // The GIL and Ray's threads are free.
    assert!(CLUSTER.nodes().unwrap()[0].is_alive);
}

#[test]
fn panic_of_the_owner_abandons_endless_calls() {
    let actors = actors(1);
    let pid = actors.pid().wait().unwrap();
    let busy = actors.sleep(3_600_000);
    let waiting = actors.sleep(3_600_000);
    let also = actors.sleep(3_600_000);
    let queued = actors.sleep(3_600_000);
    within_a_minute("a panic with busy actors", move || {
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _actors = actors;
            panic!("an assertion that fails");
        }));
        assert!(panicked.is_err());
    });
    eventually("the busy actor ends", || !is_alive(pid));
    for call in [busy, waiting, also, queued] {
        let error = call.wait().unwrap_err();
        let expected = matches!(&error, Error::Call(CallError::WorkerDied { .. } | CallError::ShutDown { .. }));
        assert!(expected, "{error}");
    }
}

/// A pipeline whose `init` can be delayed.
#[derive(Pipeline)]
struct Slow {
    #[pipeline(config)]
    config: SlowConfig,
    weight: Linear,
}

#[derive(Clone, Serialize, Deserialize)]
struct SlowConfig {
    /// `init` waits as long as this file exists.
    gate: String,
}

impl SlowConfig {
    fn init(&self, device: &Device) -> Slow {
        while Path::new(&self.gate).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Slow { config: self.clone(), weight: LinearConfig::new(4, 4).init(device) }
    }
}

#[ray_zerocopy::remote]
impl Slow {
    pub fn pid(&self) -> u32 {
        std::process::id()
    }

    pub fn sleep(&self, millis: u64) -> usize {
        std::thread::sleep(Duration::from_millis(millis));
        self.weight.weight.dims()[0]
    }
}

/// Ray kills a process some time after the request. Until then the process still answers, and a
/// call that is sent to it would be lost.
#[test]
fn call_after_a_deadline_waits_for_the_restart() {
    let actors = actors(1);
    for extra in [0, 1, 2, 4, 8, 16, 32] {
        let late = actors.clone().deadline(Duration::from_millis(200)).sleep(200 + extra);
        // It may finish before the deadline.
        drop(within_a_minute("a call with a deadline", move || late.wait()));
        let next = actors.sleep(1);
        within_a_minute("the next call", move || next.wait()).unwrap();
    }
}

#[test]
fn deadline_holds_while_another_actor_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    let slow = SlowConfig { gate: gate.to_string_lossy().into_owned() }.init(&Device::flex());
    let wrapper = ActorWrapper::on(&site(), &slow).unwrap().start_timeout(Duration::from_secs(3600));
    let actors = wrapper.spawn(3).unwrap();
    let pids: Vec<_> = actors.iter().map(|actor| actor.pid().wait().unwrap()).collect();
    std::fs::write(&gate, "").unwrap();
    let busy = actors.actor(0).sleep(3_600_000);
    kill(pids[0]);
    assert!(busy.wait().is_err());
    let back = actors.actor(0).pid();
    let late = actors.clone().deadline(Duration::from_millis(400)).actor(1).sleep(3_600_000);
    let error = within_a_minute("a call with a deadline", move || late.wait()).unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    // Other actors are not delayed either.
    assert_eq!(actors.actor(2).sleep(1).wait().unwrap(), 4);
    std::fs::remove_file(&gate).unwrap();
    assert_ne!(back.wait().unwrap(), pids[0]);
    assert_ne!(actors.actor(1).pid().wait().unwrap(), pids[1]);
}

#[test]
fn queued_call_runs_before_the_engine_ends() {
    let actors = actors(1);
    let pid = actors.pid().wait().unwrap();
    kill(pid);
    eventually("the engine has heard of its death", || {
        // The engine notices the death at the next call.
        drop(actors.pid().wait());
        actors.workers().is_empty() || actors.workers()[0].pid != pid
    });
    let waits = actors.actor(0).pid();
    within_a_minute("dropping actors while one comes back", move || drop(actors));
    assert_ne!(within_a_minute("the call", move || waits.wait()).unwrap(), pid);
}

#[test]
fn task_runs_after_all_idle_workers_are_killed() {
    let tasks = TaskWrapper::on(&site(), &model()).unwrap();
    for _ in 0..2 {
        // Ray starts its workers a few at a time.
        let mut pids = Vec::new();
        eventually("there are more workers than a task has attempts", || {
            pids = gather((0..8).map(|_| tasks.sleep(1000))).wait().unwrap();
            pids.sort_unstable();
            pids.dedup();
            pids.len() > 4
        });
        // Ray may have ended surplus workers already.
        for pid in &pids {
            let _gone = kill_process(Pid::from_raw(*pid as i32).unwrap(), Signal::KILL);
        }
        let after = tasks.pid().wait().unwrap();
        assert!(!pids.contains(&after), "{after} of {pids:?}");
    }
}

#[test]
fn queued_tasks_run_after_all_workers_die() {
    let tasks = TaskWrapper::on(&site(), &model()).unwrap();
    let first = gather((0..8).map(|_| tasks.sleep(400))).wait().unwrap();
    let calls = gather((0..24).map(|_| tasks.sleep(100)));
    for pid in first {
        let _gone = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
    }
    assert_eq!(calls.wait().unwrap().len(), 24);
}
