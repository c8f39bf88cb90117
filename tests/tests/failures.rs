//! Failures of the local engine: killed workers, panics, aborts, deadlines, and values that cannot
//! be sent. No call hangs, and no call is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::error::CallPhase;
use ray_zerocopy::{CallError, Error, LocalPool, TaskWrapper, gather};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{TestModel, TestModelConfig};
use rustix::process::{Pid, Signal, kill_process};

fn setup(workers: usize) -> (LocalPool, TaskWrapper<TestModel>) {
    let engine = LocalPool::builder().workers(workers).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &TestModelConfig::new(8).init(&Device::flex())).unwrap();
    (engine, tasks)
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn worker_killed_while_idle_costs_no_call() {
    let (engine, tasks) = setup(1);
    let before = tasks.pid().wait().unwrap();
    kill(before);
    // One attempt is enough, because the killed process never received the call.
    eventually("the killed worker is gone", || !is_alive(before));
    let after = tasks.clone().attempts(1).pid().wait().unwrap();
    assert_ne!(before, after);
    kill(after);
    eventually("the pool restarts the worker without a call", || {
        engine.workers().first().is_some_and(|worker| worker.pid != after && is_alive(worker.pid))
    });
}

#[test]
fn task_of_worker_killed_while_busy_is_retried() {
    let (_engine, tasks) = setup(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let pending = tasks.announce_and_sleep(file.to_string_lossy().into_owned(), 300);
    let read = || std::fs::read_to_string(&file).ok().and_then(|text| text.parse::<u32>().ok());
    eventually("a worker is busy", || read().is_some());
    let victim = read().unwrap();
    kill(victim);
    assert_ne!(pending.wait().unwrap(), victim);
}

#[test]
fn task_is_retried_if_worker_dies_while_loading() {
    let folder = tempfile::tempdir().unwrap();
    let deadly = folder.path().join("deadly");
    let config = TestModelConfig { size: 8, deadly: Some(deadly.to_string_lossy().into_owned()) };
    let engine = LocalPool::builder().workers(2).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &config.init(&Device::flex())).unwrap();
    std::fs::write(&deadly, "").unwrap();
    tasks.pid().wait().unwrap();
    assert!(!deadly.exists(), "no worker removed the file and died");
}

#[test]
fn task_that_kills_workers_fails_after_attempts() {
    let (_engine, tasks) = setup(2);
    let error = tasks.die_always().wait().unwrap_err();
    let Error::Call(CallError::WorkerDied { method, attempts, allowed, how, .. }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), *attempts, *allowed), ("die_always", 3, 3));
    assert!(how.starts_with("signal: 9 (SIGKILL)"), "{how}");
    assert!(error.to_string().ends_with("does the method crash on this input?"), "{error}");
    // The pool has all its workers again.
    assert_eq!(gather((0..4).map(|_| tasks.sleep(5))).wait().unwrap().len(), 4);

    let folder = tempfile::tempdir().unwrap();
    let once = folder.path().join("once").to_string_lossy().into_owned();
    tasks.die_once(once).wait().unwrap();
}

#[test]
fn a_panic_is_an_error_and_the_worker_lives_on() {
    let (_engine, tasks) = setup(1);
    let pid = tasks.pid().wait().unwrap();
    let error = tasks.panic_with("bad input".to_owned()).wait().unwrap_err();
    let text = error.to_string();
    let place =
        format!("`panic_with` panicked in worker 0 (pid {pid}): asked to panic: bad input (tests/src/models.rs:");
    assert!(text.starts_with(&place), "{text}");
    assert_eq!(tasks.pid().wait().unwrap(), pid);
}

#[test]
fn abort_is_an_error_that_names_the_signal() {
    let (_engine, tasks) = setup(1);
    let error = tasks.clone().attempts(2).abort_process().wait().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("(signal: 6 (SIGABRT)") && text.contains("it aborted), attempt 2 of 2"), "{text}");
    let text = tasks.clone().attempts(1).abort_process().wait().unwrap_err().to_string();
    assert!(text.ends_with("attempt 1 of 1; does the method crash on this input?"), "{text}");
    tasks.pid().wait().unwrap();
}

#[test]
fn unwritable_result_error_names_the_method() {
    let (_engine, tasks) = setup(1);
    let pid = tasks.pid().wait().unwrap();
    let error = tasks.secret().wait().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("of `secret` could not be sent between processes"), "{text}");
    assert!(text.contains("this type cannot be serialized"), "{text}");
    assert_eq!(tasks.pid().wait().unwrap(), pid);
}

#[test]
fn nested_option_that_would_collapse_is_refused() {
    let (_engine, tasks) = setup(1);
    assert_eq!(tasks.maybe(None).wait().unwrap(), None);
    assert_eq!(tasks.maybe(Some(Some(3))).wait().unwrap(), Some(Some(3)));
    let error = tasks.maybe(Some(None)).wait().unwrap_err();
    assert!(error.to_string().contains("holds nothing, and would come back as `None`"), "{error}");
}

#[test]
fn passed_deadline_replaces_the_busy_worker() {
    let (_engine, tasks) = setup(1);
    let before = tasks.pid().wait().unwrap();
    let hasty = tasks.clone().deadline(Duration::from_millis(200));
    let error = hasty.sleep(120_000).wait().unwrap_err();
    let Error::Call(CallError::Deadline { method, after, phase }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), *after), ("sleep", Duration::from_millis(200)));
    assert!(matches!(phase, CallPhase::Running(worker) if (worker.index, worker.pid) == (0, before)), "{phase}");
    assert_ne!(tasks.pid().wait().unwrap(), before);
    assert!(!is_alive(before));
}

#[test]
fn a_deadline_also_counts_the_time_in_the_queue() {
    let (_engine, tasks) = setup(1);
    let busy = tasks.sleep(700);
    let hasty = tasks.clone().deadline(Duration::from_millis(50));
    let error = hasty.pid().wait().unwrap_err();
    let Error::Call(CallError::Deadline { phase, .. }) = &error else { panic!("{error}") };
    assert_eq!(*phase, CallPhase::Queued);
    // The worker was busy with another call, which is not affected.
    busy.wait().unwrap();
}

#[test]
fn a_storm_of_kills_loses_no_task() {
    let (engine, tasks) = setup(2);
    let tasks = tasks.attempts(50);
    let pending: Vec<_> = (0..60).map(|_| tasks.sleep(10)).collect();
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(30));
        if let Some(worker) = engine.workers().first() {
            // The worker may have ended since it was listed.
            let _gone = kill_process(Pid::from_raw(worker.pid as i32).unwrap(), Signal::KILL);
        }
    }
    assert_eq!(gather(pending).wait().unwrap().len(), 60);
}
