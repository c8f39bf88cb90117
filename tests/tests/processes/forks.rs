//! A fork of a process that has workers.

use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::pipeline::engine;
use crate::{role, sys};

/// Waits for a child of this process, which has to end with 0.
pub(crate) fn succeeded(child: i32) {
    let mut status = None;
    eventually("the fork ends", || {
        status = waitpid(Pid::from_raw(child), WaitOptions::NOHANG).unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().1.exit_status(), Some(0), "{status:?}");
}

pub(crate) fn fork_and_use() {
    let (engine, tasks) = engine(1);
    let mut pending = Some(tasks.sleep(300));
    // Its answer would be the caller's to read, if it waited.
    let child = sys::fork(|| {
        let refused = |text: String| text.contains("this process is a fork of the one that has the workers");
        let waited =
            pending.take().is_some_and(|pending| pending.wait().is_err_and(|error| refused(error.to_string())));
        let called = tasks.pid().wait().is_err_and(|error| refused(error.to_string()));
        let listed = engine.workers().is_empty();
        engine.shut_down();
        engine.shut_down_now();
        i32::from(!(waited && called && listed))
    });
    succeeded(child);
    assert!(pending.take().unwrap().wait().is_ok(), "the fork has taken the answer");

    // A result that is dropped there is still the parent's.
    let mut pending = Some(tasks.sleep(300));
    succeeded(sys::fork(|| {
        drop(pending.take());
        0
    }));
    assert!(pending.take().unwrap().wait().is_ok());
}

#[test]
fn a_fork_neither_hangs_nor_takes_what_is_its_parents() {
    role::succeed(role::command("forks"));
}
