//! Workers that are stopped with SIGSTOP: no call waits for them without end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::{ActorWrapper, CallError, Error, LocalPool, TaskWrapper};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use rustix::process::{Pid, Signal, kill_process};

fn model() -> TestModel {
    TestModelConfig::new(8).init(&Device::flex())
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Stops a process, and waits until it is stopped.
fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    eventually("the process stops", || stat().contains(") T "));
}

/// Waits for a process id in a file.
fn announced(file: &std::path::Path) -> u32 {
    let read = || std::fs::read_to_string(file).ok().and_then(|text| text.parse().ok());
    eventually("a worker is busy", || read().is_some());
    read().unwrap()
}

#[test]
fn task_of_a_stopped_worker_is_retried() {
    let engine = LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &model()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let pending = tasks.announce_and_sleep(file.to_string_lossy().into_owned(), 1000);
    let stopped = announced(&file);
    stop(stopped);
    assert_ne!(pending.wait().unwrap(), stopped);
    assert!(!is_alive(stopped));
}

#[test]
fn worker_stopped_while_idle_costs_no_call() {
    let engine = LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &model()).unwrap().attempts(1);
    let stopped = tasks.pid().wait().unwrap();
    stop(stopped);
    // The stopped worker never received the call, so that does not count as an attempt.
    assert_ne!(tasks.pid().wait().unwrap(), stopped);
}

#[test]
fn call_of_a_stopped_actor_is_an_error() {
    let actors = ActorWrapper::new(&model()).unwrap().spawn(1).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let pending = actors.announce_and_sleep(file.to_string_lossy().into_owned(), 500);
    stop(announced(&file));
    let error = pending.wait().unwrap_err();
    let Error::Call(CallError::WorkerDied { how, is_actor: true, .. }) = &error else { panic!("{error}") };
    assert!(how.contains("stopped (SIGSTOP) for several seconds"), "{how}");
    actors.pid().wait().unwrap();
}

#[test]
fn briefly_stopped_worker_is_kept() {
    let engine = LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &model()).unwrap();
    let pid = tasks.pid().wait().unwrap();
    stop(pid);
    let pending = tasks.pid();
    std::thread::sleep(Duration::from_millis(1200));
    signal(pid, Signal::CONT);
    assert_eq!(pending.wait().unwrap(), pid);
}

#[test]
fn deadline_holds_for_a_stopped_worker() {
    let engine = LocalPool::builder().workers(1).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &model()).unwrap();
    let pid = tasks.pid().wait().unwrap();
    stop(pid);
    let error = tasks.clone().deadline(Duration::from_millis(200)).pid().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    assert!(!is_alive(pid));
}

#[test]
fn a_pool_ends_although_its_workers_are_stopped() {
    let engine = LocalPool::builder().workers(2).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &model()).unwrap().attempts(1);
    let pids: Vec<_> = engine.workers().iter().map(|worker| worker.pid).collect();
    pids.iter().for_each(|&pid| stop(pid));
    let pending = tasks.pid();
    engine.shut_down();
    // The call is answered, whether a new process was started for it or not.
    drop(pending.wait());
    assert!(pids.iter().all(|&pid| !is_alive(pid)));
}
