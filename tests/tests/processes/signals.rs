//! Signals to process groups, and terminals that stop background processes.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;

use ray_zerocopy_tests::memory::{eventually, is_alive};
use rustix::process::{Pid, Signal, kill_process};

use crate::pipeline::engine;
use crate::{role, sys};

pub(crate) fn print_from_a_worker() {
    let (_engine, tasks) = engine(1);
    let before = tasks.pid().wait().unwrap();
    tasks.clone().attempts(1).print("a worker prints".to_owned()).wait().unwrap();
    assert_eq!(tasks.pid().wait().unwrap(), before, "the worker was replaced");
}

#[test]
fn worker_may_print_to_a_tostop_terminal() {
    let (person, program) = sys::terminal();
    sys::stop_the_background(&program);
    let mut command = role::command("prints from a worker");
    sys::lead_a_session(&mut command);
    let copy = || Stdio::from(program.try_clone().unwrap());
    command.stdin(copy()).stdout(copy()).stderr(copy());
    let child = command.spawn().unwrap();
    drop((command, program));
    let (status, _) = role::end_of(child);
    let mut screen = Vec::new();
    // Reading the terminal fails when no program has it open.
    let _closed = File::from(person).read_to_end(&mut screen);
    let screen = String::from_utf8_lossy(&screen);
    assert!(status.success() && screen.contains("a worker prints"), "{status}: {screen}");
}

#[test]
fn termination_signals_do_not_end_workers() {
    let (engine, tasks) = engine(2);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let pending = tasks.clone().attempts(1).announce_and_sleep(file.to_string_lossy().into_owned(), 500);
    eventually("a worker is busy", || std::fs::read(&file).is_ok_and(|text| !text.is_empty()));
    let pids: Vec<_> = engine.workers().iter().map(|worker| worker.pid).collect();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        pids.iter().for_each(|&pid| kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap());
    }
    assert!(pids.contains(&pending.wait().unwrap()));
    // The queued calls run, and then the workers end.
    let queued: Vec<_> = (0..6).map(|_| tasks.sleep(20)).collect();
    engine.shut_down();
    for pending in queued {
        assert!(pids.contains(&pending.wait().unwrap()));
    }
    assert!(pids.iter().all(|&pid| !is_alive(pid)));
}
