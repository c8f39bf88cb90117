//! Small calls that are sent to Ray together: each remains a call of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod tasks;
mod worker;

use std::sync::LazyLock;
use std::time::Duration;

use burn::tensor::Device;
use ray_zerocopy::ray::{Cluster, ClusterTarget, Options};
use ray_zerocopy::{Actor, ActorWrapper, Actors, CallError, Error, Pending, gather};
use ray_zerocopy_tests::memory::{eventually, is_alive};
use rustix::process::{Pid, Signal, kill_process};

use self::worker::{Outcome, StreamingWorker, Work, Worker, exists};

static CLUSTER: LazyLock<Cluster> =
    LazyLock::new(|| Cluster::local().cpus(4).object_store(100 << 20).quiet().start().unwrap());

fn site() -> ClusterTarget {
    CLUSTER.with(Options::default().cpus(0.1))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: impl std::fmt::Display) -> String {
        self.0.path().join(name.to_string()).to_str().unwrap().to_owned()
    }

    fn create(&self, name: &str) {
        std::fs::write(self.file(name), "").unwrap();
    }

    fn has(&self, name: impl std::fmt::Display) -> bool {
        exists(&self.file(name))
    }
}

type Run<'a> = &'a dyn Fn(Work) -> Pending<Outcome>;
type Hold<'a> = &'a dyn Fn(String, String) -> Pending<()>;

fn actors(count: usize) -> Actors<Worker> {
    ActorWrapper::on(&site(), &Worker::new(&Device::flex())).unwrap().spawn(count).unwrap()
}

/// Runs calls until they are known to be fast.
fn warm_up(run: Run) {
    (0..30).for_each(|_| drop(run(Work::Nothing).wait().unwrap()));
}

/// Makes calls that a worker gets together: while it runs one call, and has another one to continue with.
fn together(folder: &Folder, run: Run, hold: Hold, works: Vec<Work>) -> Vec<Pending<Outcome>> {
    warm_up(run);
    let held = hold(folder.file("held"), folder.file("end of held"));
    eventually("the worker is busy", || folder.has("held"));
    drop(run(Work::Nothing));
    let calls = works.into_iter().map(run).collect();
    folder.create("end of held");
    held.wait().unwrap();
    calls
}

/// Returns `true` if a call that has run is not answered, because another call of its bundle runs. Otherwise, lets
/// that one end.
fn is_bundled(folder: &Folder, first: &mut Pending<Outcome>) -> bool {
    let is_bundled = first.wait_timeout(Duration::from_millis(300)).is_none();
    if !is_bundled {
        folder.create("end");
    }
    is_bundled
}

/// Repeats an attempt that has not led to a bundle, because the machine was busy and the calls were slow.
fn until_bundled(mut attempt: impl FnMut() -> bool) {
    assert!((0..100).any(|_| attempt()), "no bundle was sent in a hundred attempts");
}

fn is_cancelled(call: Pending<Outcome>) {
    let error = call.wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Cancelled { .. })), "{error}");
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    eventually("the process ends", || !is_alive(pid));
}

#[test]
fn each_call_has_its_own_answer() {
    let actors = actors(1);
    let run = |work| actors.run(work);
    warm_up(&run);
    let kinds = [Work::Nothing, Work::Fail, Work::Nothing, Work::Count, Work::Panic, Work::Nothing, Work::Fail];
    let calls: Vec<_> = kinds.iter().cycle().take(350).map(|work| (work.clone(), run(work.clone()))).collect();
    for (index, (work, call)) in calls.into_iter().enumerate() {
        // A panic resets the actor.
        let counted = usize::from(index % 7 == 3);
        match (work, call.wait()) {
            (Work::Panic, Err(Error::Call(CallError::Panicked { message, .. }))) => {
                assert!(message.starts_with("asked to panic"), "{message}");
            }
            (Work::Fail, Ok(Err(error))) => assert_eq!(error, "failed after 0"),
            (Work::Nothing | Work::Count, Ok(Ok(found))) => assert_eq!(found, (counted, false), "call {index}"),
            found => panic!("call {index}: {found:?}"),
        }
    }
}

#[test]
fn calls_of_several_threads_keep_their_order() {
    let actors = actors(2);
    warm_up(&|work| actors.run(work));
    let counts = |actor: Actor<Worker>| gather((0..200).map(move |_| actor.run(Work::Count))).wait().unwrap();
    std::thread::scope(|scope| {
        let start = |thread: usize| {
            let actor = actors.actor(thread % 2);
            (thread % 2, scope.spawn(move || counts(actor)))
        };
        let threads: Vec<_> = (0..6).map(start).collect();
        let mut all = [Vec::new(), Vec::new()];
        for (index, thread) in threads {
            let found: Vec<_> = thread.join().unwrap().into_iter().map(|count| count.unwrap().0).collect();
            assert!(found.is_sorted(), "{found:?}");
            all[index].extend(found);
        }
        for mut found in all {
            found.sort_unstable();
            assert!(found.into_iter().eq(1..=600));
        }
    });
}

/// Cancels the call that runs: its method is told, and those of the others are not.
fn running_call_is_cancelled(run: Run, hold: Hold) -> bool {
    let folder = Folder::new();
    let wait = Work::Wait(folder.file(""));
    let works = vec![Work::Nothing, wait, Work::Nothing, Work::Note(folder.file("behind"))];
    let mut calls = together(&folder, run, hold, works);
    eventually("the call runs", || folder.has("begun"));
    if !is_bundled(&folder, &mut calls[0]) {
        return false;
    }
    let waits = calls.remove(1);
    waits.cancel();
    is_cancelled(waits);
    eventually("the method is told", || folder.has("told"));
    for call in calls {
        let (_, is_cancelled) = call.wait().unwrap().unwrap();
        assert!(!is_cancelled, "another call was cancelled");
    }
    assert!(folder.has("behind"));
    true
}

/// Cancels a call that waits behind a call that runs, in the same bundle: it never runs.
fn call_behind_the_running_one_is_cancelled(run: Run, hold: Hold) -> bool {
    let folder = Folder::new();
    let notes = (0..3).map(|number| Work::Note(folder.file(number)));
    let works = [Work::Nothing, Work::Wait(folder.file(""))].into_iter().chain(notes).collect();
    let mut calls = together(&folder, run, hold, works);
    eventually("the call runs", || folder.has("begun"));
    if !is_bundled(&folder, &mut calls[0]) {
        return false;
    }
    let cancelled = calls.remove(3);
    cancelled.cancel();
    is_cancelled(cancelled);
    // The method that runs asks meanwhile.
    std::thread::sleep(Duration::from_millis(100));
    folder.create("end");
    others_have_run(&folder, calls);
    true
}

/// Cancels a call of a bundle that Ray has not begun: it never runs.
fn call_of_a_queued_bundle_is_cancelled(run: Run, hold: Hold) -> bool {
    warm_up(run);
    let folder = Folder::new();
    let holds = [0, 1].map(|at| hold(folder.file(format!("held {at}")), folder.file(format!("end {at}"))));
    eventually("the worker is busy", || folder.has("held 0"));
    let notes = (0..3).map(|number| Work::Note(folder.file(number)));
    let mut calls: Vec<_> = notes.chain([Work::Nothing, Work::Wait(folder.file(""))]).map(run).collect();
    folder.create("end 0");
    eventually("the other call runs", || folder.has("held 1"));
    // The bundle is sent meanwhile.
    std::thread::sleep(Duration::from_millis(300));
    let cancelled = calls.remove(1);
    cancelled.cancel();
    is_cancelled(cancelled);
    folder.create("end 1");
    eventually("the last call runs", || folder.has("begun"));
    if !is_bundled(&folder, &mut calls[0]) {
        return false;
    }
    folder.create("end");
    holds.into_iter().for_each(|call| call.wait().unwrap());
    others_have_run(&folder, calls);
    true
}

/// Of three calls that create files, the second one has been cancelled.
fn others_have_run(folder: &Folder, calls: Vec<Pending<Outcome>>) {
    for call in calls {
        assert!(matches!(call.wait(), Ok(Ok((_, false)))), "another call was cancelled");
    }
    assert_eq!([0, 1, 2].map(|number| folder.has(number)), [true, false, true]);
}

fn one_call_of_a_bundle_is_cancelled(run: Run, hold: Hold) {
    until_bundled(|| running_call_is_cancelled(run, hold));
    until_bundled(|| call_behind_the_running_one_is_cancelled(run, hold));
    until_bundled(|| call_of_a_queued_bundle_is_cancelled(run, hold));
}

#[test]
fn one_call_of_an_actor_is_cancelled() {
    let actors = actors(1);
    one_call_of_a_bundle_is_cancelled(&|work| actors.run(work), &|begun, end| actors.hold(begun, end));
}

#[test]
fn one_call_of_an_actor_with_streams_is_cancelled() {
    let actors = ActorWrapper::on(&site(), &StreamingWorker::new(&Device::flex())).unwrap().spawn(1).unwrap();
    one_call_of_a_bundle_is_cancelled(&|work| actors.run(work), &|begun, end| actors.hold(begun, end));
    assert_eq!(actors.numbers(3).collect::<Result<Vec<_>, _>>().unwrap(), [0, 1, 2]);
}

/// The calls of a bundle are lost with their actor, and none of them is repeated.
#[test]
fn death_of_an_actor_ends_each_call_of_its_bundle() {
    let actors = actors(1);
    let (run, hold) = (|work| actors.run(work), |begun, end| actors.hold(begun, end));
    until_bundled(|| {
        let folder = Folder::new();
        let pid = actors.pid().wait().unwrap();
        let wait = Work::Wait(folder.file(""));
        let works = vec![Work::Nothing, wait, Work::Note(folder.file("behind")), Work::Nothing];
        let mut calls = together(&folder, &run, &hold, works);
        eventually("the call runs", || folder.has("begun"));
        if !is_bundled(&folder, &mut calls[0]) {
            return false;
        }
        kill(pid);
        // A call that is made now waits until the actor has restarted.
        let errors: Vec<_> = calls.into_iter().map(|call| call.wait().err()).collect();
        let later = actors.pid().wait().unwrap();
        assert_ne!(later, pid);
        for error in &errors {
            let Some(Error::Call(CallError::WorkerDied { method, worker, is_actor: true, .. })) = error else {
                panic!("{error:?}")
            };
            assert_eq!((method.as_str(), worker.pid), ("run", pid));
        }
        assert!(!folder.has("behind"));
        true
    });
    // The method kills the process.
    let folder = Folder::new();
    warm_up(&run);
    let calls: Vec<_> = [Work::Nothing, Work::Die(folder.file("dead")), Work::Nothing].map(run).into_iter().collect();
    let error = calls.into_iter().nth(1).unwrap().wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::WorkerDied { .. })), "{error}");
    assert_eq!(run(Work::Count).wait().unwrap(), Ok((1, false)));
}

/// No other call is sent to an actor that may be killed because of a deadline.
#[test]
fn expired_call_takes_no_other_one_with_it() {
    let actors = actors(1);
    warm_up(&|work| actors.run(work));
    let folder = Folder::new();
    let hasty = actors.clone().deadline(Duration::from_millis(400));
    let late = hasty.hold(folder.file("held"), folder.file("never"));
    let (any, one): (Vec<_>, Vec<_>) =
        (0..10).map(|_| (actors.run(Work::Count), actors.actor(0).run(Work::Count))).unzip();
    let error = late.wait().unwrap_err();
    assert!(matches!(&error, Error::Call(CallError::Deadline { .. })), "{error}");
    let counts = gather(any.into_iter().chain(one)).wait().unwrap();
    assert_eq!(counts.into_iter().map(|count| count.unwrap().0).max(), Some(20));
}

/// Ray starts an actor again that has died while it had no call. The calls that wait for it find out that it lacks
/// the pipeline, and are sent again in their order.
#[test]
fn calls_run_once_after_an_unnoticed_restart() {
    let actors = actors(1);
    let mut pause = Duration::from_millis(500);
    until_bundled(|| {
        warm_up(&|work| actors.run(work));
        let pid = actors.pid().wait().unwrap();
        kill(pid);
        // Ray starts another one.
        pause += Duration::from_millis(500);
        std::thread::sleep(pause);
        let found: Vec<Vec<_>> = std::thread::scope(|scope| {
            let calls = || {
                let calls: Vec<_> = (0..20).map(|_| actors.actor(0).run(Work::Count)).collect();
                calls.into_iter().map(Pending::wait).collect()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(calls)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        // If Ray was still starting it, calls are errors.
        let mut counts: Vec<Vec<_>> = Vec::new();
        for results in found {
            counts.push(results.into_iter().filter_map(|result| Some(result.ok()?.unwrap().0)).collect());
        }
        assert!(counts.iter().all(|counts| counts.is_sorted()), "{counts:?}");
        let mut all = counts.concat();
        all.sort_unstable();
        assert!(all.iter().copied().eq(1..=all.len()), "{all:?}");
        all.len() == 8 * 20
    });
}
