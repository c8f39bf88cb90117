//! Calls that are cancelled.

use std::path::Path;
use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::{ActorWrapper, Batching, CallError, Error, Pending, TaskWrapper};

use super::EngineUnderTest;
use super::models::{BatchModel, occupy};
use crate::memory::eventually;

/// One worker, which has loaded the pipeline.
fn tasks<E: EngineUnderTest>() -> TaskWrapper<BatchModel> {
    let tasks = TaskWrapper::on(&E::backend(1), &BatchModel::new(&Device::flex())).unwrap();
    tasks.sleep(0).wait().unwrap();
    tasks
}

fn is_cancelled<T>(pending: Pending<T>, method: &str) {
    let Err(error) = pending.wait() else { panic!("`{method}` was not cancelled") };
    assert!(matches!(&error, Error::Call(CallError::Cancelled { method: found }) if found == method), "{error}");
    assert_eq!(error.to_string(), format!("`{method}` was cancelled by its caller"));
}

fn file(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

fn exists(file: &str) -> bool {
    Path::new(file).exists()
}

pub fn queued_call_never_runs<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks::<E>();
    let busy = occupy(&tasks);
    let calls: Vec<_> = (0..5).map(|index| tasks.note(file(&folder, &index.to_string()))).collect();
    calls.iter().skip(1).for_each(Pending::cancel);
    busy.release();
    for (index, call) in calls.into_iter().enumerate() {
        if index == 0 {
            call.wait().unwrap();
        } else {
            is_cancelled(call, "note");
        }
    }
    tasks.sleep(0).wait().unwrap();
    assert!(exists(&file(&folder, "0")));
    assert!((1..5).all(|index| !exists(&file(&folder, &index.to_string()))));
}

pub fn running_method_finds_out<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks::<E>();
    for round in 0..3 {
        let [begun, ended] = ["begun", "ended"].map(|name| file(&folder, &format!("{name} {round}")));
        let call = tasks.wait_until_cancelled(begun.clone(), ended.clone());
        eventually("the call runs", || exists(&begun));
        call.cancel();
        is_cancelled(call, "wait_until_cancelled");
        eventually("the method returns", || exists(&ended));
        // The worker goes on with the next call, which is not cancelled.
        tasks.sleep(1).wait().unwrap();
    }
}

pub fn stubborn_worker_is_replaced<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let begun = file(&folder, "begun");
    let tasks = tasks::<E>().cancel_grace(Duration::from_millis(50));
    tasks.sleep(0).wait().unwrap();
    let millis = if E::REPLACES_WORKERS { 600_000 } else { 300 };
    let call = tasks.announce_and_sleep(begun.clone(), millis);
    eventually("the call runs", || exists(&begun));
    call.cancel();
    is_cancelled(call, "announce_and_sleep");
    tasks.sleep(1).wait().unwrap();
}

pub fn dropping_cancels_if_asked<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = tasks::<E>();
    let busy = occupy(&tasks);
    let [kept, cancelled] = ["kept", "cancelled"].map(|name| file(&folder, name));
    drop(tasks.note(kept.clone()));
    drop(tasks.note(cancelled.clone()).cancel_on_drop());
    busy.release();
    // On Ray, a later task may overtake an earlier one.
    eventually("the call has run", || exists(&kept));
    tasks.sleep(0).wait().unwrap();
    assert!(!exists(&cancelled));
    assert_eq!(tasks.shout_one("a".to_owned()).cancel_on_drop().wait().unwrap(), Ok(("A".to_owned(), 1)));
}

pub fn member_of_a_batch_leaves_it<E: EngineUnderTest>() {
    let tasks = tasks::<E>().batch(Batching::default());
    let busy = occupy(&tasks);
    let first = tasks.shout_one("first".to_owned());
    let calls: Vec<_> = (0..6).map(|_| tasks.shout_one("a".to_owned())).collect();
    calls.iter().step_by(2).for_each(Pending::cancel);
    busy.release();
    for (index, call) in calls.into_iter().enumerate() {
        if index % 2 == 0 {
            is_cancelled(call, "shout");
        } else {
            let (text, rows) = call.wait().unwrap().unwrap();
            assert_eq!(text, "A");
            assert!(rows <= 4, "{rows}");
        }
    }
    first.wait().unwrap().unwrap();
}

pub fn result_that_has_arrived_stays<E: EngineUnderTest>() {
    let tasks = tasks::<E>();
    let mut call = tasks.shout(vec!["a".to_owned()]);
    assert!(call.wait_timeout(Duration::from_secs(60)).is_some());
    call.cancel();
    let mut call = tasks.sleep(0);
    while call.wait_timeout(Duration::ZERO).is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    call.cancel();
    tasks.sleep(0).wait().unwrap();
}

pub fn call_to_an_actor_is_cancelled<E: EngineUnderTest>() {
    let folder = tempfile::tempdir().unwrap();
    let wrapper = ActorWrapper::on(&E::backend(1), &BatchModel::new(&Device::flex())).unwrap();
    let actors = wrapper.threads_per_worker(1).spawn(1).unwrap();
    let [begun, ended, never] = ["begun", "ended", "never"].map(|name| file(&folder, name));
    let running = actors.actor(0).wait_until_cancelled(begun.clone(), ended.clone());
    let queued = actors.actor(0).note(never.clone());
    eventually("the call runs", || exists(&begun));
    queued.cancel();
    running.cancel();
    is_cancelled(queued, "note");
    is_cancelled(running, "wait_until_cancelled");
    actors.sleep(0).wait().unwrap();
    assert!(exists(&ended));
    // Ray may start a call at the moment at which it is cancelled.
    assert!(E::PASSES_CALLS_ON || !exists(&never));
}
