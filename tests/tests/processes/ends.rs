//! Ends of workers and their reasons, and ends of owners while workers are busy.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::{ActorWrapper, CallError, Error, LocalPool, TaskWrapper};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use rustix::process::{Pid, Signal, kill_process};

use crate::pipeline::{Probe, ProbeConfig, engine, probe};
use crate::{role, sys};

fn kill(pid: u32) {
    // The worker may have ended already.
    let _gone = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
}

#[test]
fn no_task_is_lost_if_all_idle_workers_die() {
    let (engine, tasks) = engine(6);
    for round in 0..10 {
        eventually("all workers run", || engine.workers().len() == 6);
        engine.workers().iter().for_each(|worker| kill(worker.pid));
        // One attempt is enough, because no worker received the call.
        let result = tasks.clone().attempts(1).pid().wait();
        assert!(result.is_ok(), "round {round}: {}", result.unwrap_err());
    }
}

pub(crate) fn have_a_worker_that_aborts() {
    let (_engine, tasks) = engine(1);
    let error = tasks.clone().attempts(1).abort().wait().unwrap_err().to_string();
    assert!(error.contains("SIGABRT") || error.contains("this process ignores SIGCHLD"), "{error}");
    tasks.pid().wait().unwrap();
}

#[test]
fn abort_is_reported_while_sigchld_is_ignored() {
    let mut command = role::command("has a worker that aborts");
    sys::ignore_children(&mut command);
    role::succeed(command);
}

#[test]
fn panic_that_aborts_the_process_has_a_message() {
    let (_engine, tasks) = engine(1);
    let error = tasks.clone().attempts(1).panic_for_good().wait().unwrap_err();
    let Error::Call(CallError::WorkerDied { how, .. }) = &error else { panic!("{error}") };
    assert!(
        how.contains("SIGABRT") && how.contains("it panicked: the probe is broken (tests/tests/processes/sys.rs:"),
        "{how}"
    );
    tasks.pid().wait().unwrap();
}

#[test]
fn hung_and_failed_loads_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wait").to_string_lossy().into_owned();
    let config = ProbeConfig { waits_for: Some(file.clone()), panics_if_others_wait: false };
    let wrapper = ActorWrapper::<Probe>::new(&config.init(&Device::flex())).unwrap();
    std::fs::write(&file, "").unwrap();
    let error = wrapper.clone().start_timeout(Duration::from_secs(2)).spawn(1).unwrap_err().to_string();
    assert!(error.contains("worker 0") && error.contains("did not load the pipeline within 2s"), "{error}");

    // One worker hangs and the other fails: the failure is reported.
    let config = ProbeConfig { panics_if_others_wait: true, ..config };
    let wrapper = ActorWrapper::<Probe>::new(&config.init(&Device::flex())).unwrap();
    let error = wrapper.spawn(2).unwrap_err().to_string();
    assert!(error.contains("another one waits"), "{error}");
}

#[test]
fn restarted_actor_that_hangs_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wait").to_string_lossy().into_owned();
    let config = ProbeConfig { waits_for: Some(file.clone()), panics_if_others_wait: false };
    let wrapper = ActorWrapper::<Probe>::new(&config.init(&Device::flex())).unwrap();
    let actors = wrapper.start_timeout(Duration::from_secs(2)).spawn(1).unwrap();
    std::fs::write(&file, "").unwrap();
    kill(actors.workers()[0].pid);
    let error = actors.actor(0).pid().wait().unwrap_err().to_string();
    assert!(error.contains("did not load the pipeline within 2s"), "{error}");
    std::fs::remove_file(&file).unwrap();
    eventually("the actor restarts", || actors.actor(0).pid().wait().is_ok());
}

#[test]
fn unkillable_worker_delays_no_deadline_or_end() {
    let (engine, tasks) = engine(1);
    let pid = tasks.pid().wait().unwrap();
    let held = match sys::HeldBack::hold(pid) {
        Ok(held) => held,
        Err(error) => {
            eprintln!("skipped: this process may not trace another: {error}");
            return;
        }
    };
    let error = tasks.clone().deadline(Duration::from_millis(200)).sleep(600_000).wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    assert!(is_alive(pid), "it was to be held back");
    // Another worker replaces it.
    assert_ne!(tasks.pid().wait().unwrap(), pid);
    engine.shut_down();
    assert!(is_alive(pid), "it was to be held back");
    drop(held);
    eventually("the process is reaped when it can end", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
}

pub(crate) fn panic_while_an_actor_is_busy() {
    let actors = ActorWrapper::new(&probe()).unwrap().spawn(1).unwrap();
    let _busy = actors.sleep(3_600_000);
    let _waits = actors.sleep(3_600_000);
    panic!("an assertion fails");
}

#[test]
fn panic_of_the_owner_ignores_busy_workers() {
    let mut command = role::command("panics while an actor is busy");
    // Its report of a failed test would look like one of ours.
    command.stdout(Stdio::null());
    let (status, text) = role::end_of(role::start(command));
    // Code that runs while the panic unwinds must not panic again, which would abort.
    assert!(status.code() == Some(101) && text.contains("an assertion fails"), "{status}: {text}");
}

#[test]
fn engine_can_be_aborted_while_calls_run() {
    let (engine, tasks) = engine(1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let running = tasks.announce_and_sleep(file.to_string_lossy().into_owned(), 3_600_000);
    let waiting = tasks.pid();
    eventually("the worker is busy", || std::fs::read(&file).is_ok_and(|text| !text.is_empty()));
    let pid = engine.workers()[0].pid;
    engine.shut_down_now();
    assert!(!is_alive(pid));
    let error = running.wait().unwrap_err();
    assert!(
        matches!(&error, Error::Call(CallError::WorkerDied { how, .. }) if how == "the engine was aborted"),
        "{error}"
    );
    let error = waiting.wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::ShutDown { .. })), "{error}");
    let error = tasks.pid().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::ShutDown { .. })), "{error}");
}

/// Variable with the path of a file. Workers write a line to the file and end soon after their
/// start.
const END_SOON: &str = "RAY_ZEROCOPY_TEST_END_SOON";

/// Runs before `main`, also in workers.
pub(crate) fn end_soon_if_asked() {
    let Some(file) = std::env::var_os(END_SOON).filter(|_| std::env::var_os("RAY_ZEROCOPY_WORKER").is_some()) else {
        return;
    };
    std::thread::spawn(move || {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
        file.write_all(b"begun\n").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        std::process::exit(1);
    });
}

pub(crate) fn start_workers_that_end_at_once() {
    // Usually the workers are connected before they end.
    let Ok(engine) = LocalPool::builder().workers(2).threads_per_worker(1).start() else { return };
    let Ok(_tasks) = TaskWrapper::on(&engine, &probe()) else { return };
    std::thread::sleep(Duration::from_secs(2));
    engine.shut_down_now();
}

#[test]
fn starts_of_short_lived_workers_are_throttled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("begun");
    let mut command = role::command("starts workers that end at once");
    command.env(END_SOON, &file);
    role::succeed(command);
    let begun = std::fs::read_to_string(&file).unwrap().lines().count();
    // Two workers for two seconds with pauses of 0.3 s: at most 14 starts. There are more only if
    // the machine stalls.
    assert!((1..=30).contains(&begun), "{begun} processes were started");
}
