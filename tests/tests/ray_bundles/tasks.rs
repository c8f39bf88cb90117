//! Bundles of tasks.

use burn::tensor::Device;
use ray_zerocopy::ray::Options;
use ray_zerocopy::{CallError, Error, TaskWrapper, gather};
use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Pid, Signal, kill_process};

use super::worker::{TaskWorker, Work};
use super::{
    CLUSTER, Folder, Hold, Run, is_bundled, one_call_of_a_bundle_is_cancelled, together, until_bundled, warm_up,
};

/// Tasks of which one runs at a time, so that the others wait.
fn tasks() -> TaskWrapper<TaskWorker> {
    TaskWrapper::on(&CLUSTER.with(Options::default().cpus(3.0)), &TaskWorker::new(&Device::flex())).unwrap()
}

/// The tasks of one test after the other.
#[test]
fn tasks_that_wait_are_sent_together() {
    let tasks = tasks().attempts(2);
    let (run, hold) = (|work| tasks.run(work), |begun, end| tasks.hold(begun, end));
    one_call_of_a_bundle_is_cancelled(&run, &hold);
    until_bundled(|| bundle_of_tasks_is_repeated(&run, &hold, &|| tasks.pid().wait().unwrap()));
    until_bundled(|| deadly_task_costs_the_others_an_attempt(&run, &hold));
    worker_without_the_pipeline_gets_it(&run, tasks.pid().wait().unwrap());
}

/// The worker of a bundle is killed. Each call runs again.
fn bundle_of_tasks_is_repeated(run: Run, hold: Hold, pid: &dyn Fn() -> u32) -> bool {
    let folder = Folder::new();
    let pid = pid();
    let works = vec![Work::Nothing, Work::Wait(folder.file("")), Work::Note(folder.file("behind")), Work::Fail];
    let mut calls = together(&folder, run, hold, works);
    eventually("the call runs", || folder.has("begun"));
    if !is_bundled(&folder, &mut calls[0]) {
        return false;
    }
    // Another worker may have run it.
    let killed = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).is_ok();
    folder.create("end");
    let results: Vec<_> = calls.into_iter().map(|call| call.wait().unwrap()).collect();
    assert!(matches!(&results[..], [Ok(_), Ok(_), Ok(_), Err(_)]), "{results:?}");
    assert!(folder.has("behind"));
    killed
}

/// A call that kills each of its workers is an error after its attempts, and the calls beside it are not.
fn deadly_task_costs_the_others_an_attempt(run: Run, hold: Hold) -> bool {
    let folder = Folder::new();
    let works = vec![Work::Nothing, Work::Wait(folder.file("")), Work::Die(folder.file("dead")), Work::Nothing];
    let mut calls = together(&folder, run, hold, works);
    eventually("the call runs", || folder.has("begun"));
    if !is_bundled(&folder, &mut calls[0]) {
        return false;
    }
    folder.create("end");
    for (index, call) in calls.into_iter().enumerate() {
        match (index, call.wait()) {
            (2, Err(Error::Call(CallError::WorkerDied { method, attempts: 2, allowed: 2, is_actor: false, .. }))) => {
                assert_eq!(method, "run");
            }
            (0 | 1 | 3, Ok(Ok(_))) => {}
            found => panic!("{found:?}"),
        }
    }
    assert_eq!(std::fs::read(folder.file("dead")).unwrap(), b"xx", "it has run in the bundle, and alone");
    true
}

/// The worker's successor gets calls before it has loaded the pipeline.
fn worker_without_the_pipeline_gets_it(run: Run, pid: u32) {
    warm_up(run);
    let _gone = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
    let calls: Vec<_> = (0..40).map(|_| run(Work::Nothing)).collect();
    assert!(gather(calls).wait().unwrap().iter().all(Result::is_ok));
}
