//! What goes wrong: killed workers, panics, aborts, deadlines, and what cannot travel. Nothing hangs, nothing is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::error::CallPhase;
use ray_zerocopy::{CallError, Error, LocalPool, TaskWrapper, gather};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use ray_zerocopy_tests::models::{Mill, MillConfig};
use rustix::process::{Pid, Signal, kill_process};

fn setup(workers: usize) -> (LocalPool, TaskWrapper<Mill>) {
    let engine = LocalPool::builder().workers(workers).threads_per_worker(1).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &MillConfig::new(8).init(&Device::flex())).unwrap();
    (engine, tasks)
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_worker_killed_while_idle_is_replaced_and_costs_no_call() {
    let (engine, tasks) = setup(1);
    let before = tasks.pid().wait().unwrap();
    kill(before);
    // Even with a single attempt: the dead process has never seen the call.
    eventually("the killed worker is gone", || !is_alive(before));
    let after = tasks.clone().attempts(1).pid().wait().unwrap();
    assert_ne!(before, after);
    kill(after);
    eventually("the pool heals without being asked", || {
        engine.workers().first().is_some_and(|worker| worker.pid != after && is_alive(worker.pid))
    });
}

#[test]
fn a_task_whose_worker_is_killed_while_busy_runs_on_another() {
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
fn a_task_whose_worker_dies_while_it_loads_runs_on_another() {
    let folder = tempfile::tempdir().unwrap();
    let deadly = folder.path().join("deadly");
    let config = MillConfig { size: 8, deadly: Some(deadly.to_string_lossy().into_owned()) };
    let engine = LocalPool::builder().workers(2).start().unwrap();
    let tasks = TaskWrapper::on(&engine, &config.init(&Device::flex())).unwrap();
    std::fs::write(&deadly, "").unwrap();
    tasks.pid().wait().unwrap();
    assert!(!deadly.exists(), "nobody died");
}

#[test]
fn a_task_that_always_kills_its_worker_is_an_error_after_some_attempts() {
    let (_engine, tasks) = setup(2);
    let error = tasks.die_always().wait().unwrap_err();
    let Error::Call(CallError::WorkerDied { method, attempts, allowed, how, .. }) = &error else { panic!("{error}") };
    assert_eq!((method.as_str(), *attempts, *allowed), ("die_always", 3, 3));
    assert!(how.starts_with("signal: 9 (SIGKILL)"), "{how}");
    assert!(error.to_string().ends_with("does the method crash on this input?"), "{error}");
    // The pool is whole again.
    assert_eq!(gather((0..4).map(|_| tasks.sleep(5))).wait().unwrap().len(), 4);

    let folder = tempfile::tempdir().unwrap();
    let once = folder.path().join("once").to_string_lossy().into_owned();
    tasks.die_once(once).wait().unwrap();
}

#[test]
fn a_panic_is_an_error_and_the_worker_lives_on() {
    let (_engine, tasks) = setup(1);
    let pid = tasks.pid().wait().unwrap();
    let error = tasks.jam("a mouse".to_owned()).wait().unwrap_err();
    let text = error.to_string();
    let place = format!("`jam` panicked in worker 0 (pid {pid}): the mill is jammed by a mouse (tests/src/models.rs:");
    assert!(text.starts_with(&place), "{text}");
    assert_eq!(tasks.pid().wait().unwrap(), pid);
}

#[test]
fn an_abort_is_an_error_that_says_so() {
    let (_engine, tasks) = setup(1);
    let error = tasks.clone().attempts(2).explode().wait().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("(signal: 6 (SIGABRT)") && text.contains("it aborted), attempt 2 of 2"), "{text}");
    let text = tasks.clone().attempts(1).explode().wait().unwrap_err().to_string();
    assert!(text.ends_with("attempt 1 of 1; does the method crash on this input?"), "{text}");
    tasks.pid().wait().unwrap();
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_that_names_the_method() {
    let (_engine, tasks) = setup(1);
    let pid = tasks.pid().wait().unwrap();
    let error = tasks.secret().wait().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("of `secret` could not travel between the processes"), "{text}");
    assert!(text.contains("nobody may write this down"), "{text}");
    assert_eq!(tasks.pid().wait().unwrap(), pid);
}

#[test]
fn what_would_come_back_as_something_else_is_refused() {
    let (_engine, tasks) = setup(1);
    assert_eq!(tasks.maybe(None).wait().unwrap(), None);
    assert_eq!(tasks.maybe(Some(Some(3))).wait().unwrap(), Some(Some(3)));
    let error = tasks.maybe(Some(None)).wait().unwrap_err();
    assert!(error.to_string().contains("holds nothing, and would come back as `None`"), "{error}");
}

#[test]
fn a_passed_deadline_is_an_error_and_the_busy_worker_is_replaced() {
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
    // The worker was busy with somebody else's call, which is not hurt.
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
            // It may have ended since it was listed.
            let _gone = kill_process(Pid::from_raw(worker.pid as i32).unwrap(), Signal::KILL);
        }
    }
    assert_eq!(gather(pending).wait().unwrap().len(), 60);
}
