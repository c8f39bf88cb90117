//! Traces of local workers that are killed, and what workers run when they start.
//!
//! The conformance suite of engines has the spans of calls: `tests/src/engines/traces.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use ray_zerocopy::observe::set_worker_set_up;
use ray_zerocopy::{CallError, Error, LocalPool};
use ray_zerocopy_tests::engines::EngineUnderTest;
use ray_zerocopy_tests::engines::traces::traced;
use ray_zerocopy_tests::memory::eventually;
use ray_zerocopy_tests::tracer::{Trace, children, named};
use rustix::process::{Pid, Signal, kill_process};

struct Local;

impl EngineUnderTest for Local {
    type Backend = LocalPool;

    fn backend(workers: usize) -> LocalPool {
        LocalPool::builder().workers(workers).threads_per_worker(1).start().unwrap()
    }

    const REPLACES_WORKERS: bool = true;
}

/// The set-up of workers is that of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// Each call has one span, with its outcome, however often its workers are killed.
#[test]
fn spans_are_complete_when_workers_are_killed() {
    const CALLS: usize = 300;
    let _alone = ALONE.lock();
    let tasks = traced::<Local>(2).attempts(3);
    let trace = Trace::begin();
    let calls: Vec<_> = trace.root.in_scope(|| (0..CALLS).map(|_| tasks.sleep(3)).collect());
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(60));
        for worker in tasks.report().unwrap().processes.iter().filter(|process| process.pid != std::process::id()) {
            // It may have ended.
            let _ = kill_process(Pid::from_raw(worker.pid as i32).unwrap(), Signal::KILL);
        }
    }
    let mut outcomes = BTreeMap::<_, usize>::new();
    for call in calls {
        let outcome = match call.wait() {
            Ok(()) => "ok",
            Err(Error::Call(CallError::WorkerDied { .. })) => "worker_died",
            Err(error) => panic!("{error}"),
        };
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
    trace.root.in_scope(|| tasks.clone().attempts(2).die()).wait().unwrap_err();
    *outcomes.entry("worker_died".to_owned()).or_default() += 1;
    eventually("all calls have ended", || named(&trace.recorded(), "call").len() == CALLS + 1);
    let recorded = trace.recorded();
    let mut found = BTreeMap::<_, usize>::new();
    for call in named(&recorded, "call") {
        *found.entry(call.field("outcome").to_owned()).or_default() += 1;
        let attempts = children(&recorded, call, "worker");
        assert!(!attempts.is_empty() && children(&recorded, call, "queue").len() >= attempts.len());
        if call.field("method") == "die" {
            // More if a worker was dead when the call was sent to it.
            assert!(attempts.len() >= 2, "{attempts:?}");
            assert_ne!(attempts[0].field("pid"), attempts[1].field("pid"));
        }
        // A worker that is killed takes its span along. All others have one.
        let methods = attempts.iter().map(|worker| children(&recorded, worker, "method").len()).sum::<usize>();
        assert!(methods <= attempts.len());
        if call.field("outcome") == "ok" {
            assert!(methods >= 1, "{call:?}");
        }
    }
    assert_eq!(found, outcomes);
}

/// Writes a file when it is dropped.
struct Note(PathBuf);

impl Drop for Note {
    fn drop(&mut self) {
        fs::write(self.0.join(format!("{}.ended", std::process::id())), "").unwrap();
    }
}

fn note(folder: String) -> Box<dyn Any> {
    let folder = PathBuf::from(folder);
    fs::write(folder.join(std::process::id().to_string()), "").unwrap();
    Box::new(Note(folder))
}

fn fail(reason: String) -> Box<dyn Any> {
    panic!("{reason}");
}

#[test]
fn workers_keep_what_their_set_up_returns() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    set_worker_set_up(note, folder.path().to_str().unwrap()).unwrap();
    let pool = Local::backend(2);
    let pids: Vec<_> = pool.workers().iter().map(|worker| worker.pid).collect();
    let has = |ending: &str| pids.iter().filter(|pid| folder.path().join(format!("{pid}{ending}")).exists()).count();
    assert_eq!((has(""), has(".ended")), (2, 0));
    pool.shut_down();
    assert_eq!(has(".ended"), 2);

    set_worker_set_up(fail, "on purpose").unwrap();
    let error = LocalPool::builder().workers(1).start().unwrap_err().to_string();
    assert!(error.contains("the set-up of workers could not be run: it panicked: on purpose"), "{error}");
}
