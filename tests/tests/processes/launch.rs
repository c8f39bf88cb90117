//! Ways to start a program: through the dynamic loader, after its file was deleted, as a plugin of
//! a host, and without `/proc`.

use std::path::Path;
use std::process::Command;

use ray_zerocopy::{LocalPool, TaskWrapper};
use rustix::process::getuid;

use crate::pipeline::{engine, probe};
use crate::{role, sys};

pub(crate) fn run_a_task() {
    let (_engine, tasks) = engine(2);
    assert_ne!(tasks.pid().wait().unwrap(), std::process::id());
}

/// Starts workers, which must fail with an error that contains the role's subject.
pub(crate) fn start_workers_and_fail() {
    let expected = role::subject();
    let error = LocalPool::builder().workers(1).start().unwrap_err().to_string();
    assert!(error.contains(&expected), "{error}");
}

/// The dynamic loader of this executable.
fn loader() -> Option<&'static str> {
    ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].into_iter().find(|path| Path::new(path).exists())
}

#[test]
fn program_started_by_the_loader_has_workers() {
    let Some(loader) = loader() else {
        eprintln!("skipped: the dynamic loader of this system is not known");
        return;
    };
    let mut command = Command::new(loader);
    command.arg(std::env::current_exe().unwrap());
    role::succeed(role::cast(command, "runs a task"));

    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::copy("/proc/self/exe", &program).unwrap();
    // With an option of the loader, which the workers need too, and a relative path.
    let mut command = Command::new(loader);
    command.args(["--library-path", "/nowhere", "./program"]).current_dir(&folder);
    role::succeed(role::cast(command, "runs a task"));
}

#[test]
fn a_program_that_was_deleted_has_workers() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::copy("/proc/self/exe", &program).unwrap();
    // The shell executes the open file after it was deleted.
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec 3<"$1"; rm "$1"; shift; exec /proc/self/fd/3 "$@""#, "sh"]).arg(&program);
    role::succeed(role::cast(command, "runs a task"));
}

#[test]
fn a_plugin_says_that_workers_are_not_its_host() {
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples");
    let text = sys::answer_of_library(&folder.join("libplugin.so"), "start_workers");
    assert!(text.contains("is in the shared library") && text.contains("libplugin.so"), "{text}");
    assert!(text.contains("give the workers a program with `.program(..)`"), "{text}");
}

#[test]
fn without_proc_the_error_says_so() {
    if !getuid().is_root() {
        eprintln!("skipped: only root can take /proc away");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", r#"mount -t tmpfs none /proc && exec "$@""#, "sh"]);
    command.arg(std::env::current_exe().unwrap());
    role::succeed(role::with(role::cast(command, "starts workers and fails"), "mount /proc"));
}

#[test]
fn pool_of_this_process_is_unaffected() {
    // The same calls work in this process, so the roles above fail only for their stated reasons.
    let engine = LocalPool::builder().workers(1).start().unwrap();
    assert!(TaskWrapper::on(&engine, &probe()).unwrap().pid().wait().is_ok());
}
