//! Forks of a process that has workers.

use ray_zerocopy_tests::memory::eventually;
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::pipeline::engine;
use crate::{role, sys};

/// Waits for a child of this process, which must exit with 0.
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
    // A wait in the parent would read this answer.
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
    assert!(pending.take().unwrap().wait().is_ok(), "the fork has consumed the answer");

    // A result that the child drops is still available in the parent.
    let mut pending = Some(tasks.sleep(300));
    succeeded(sys::fork(|| {
        drop(pending.take());
        0
    }));
    assert!(pending.take().unwrap().wait().is_ok());
}

#[test]
fn fork_does_not_hang_or_steal_answers() {
    role::succeed(role::command("forks"));
}
