//! Roles: this executable, started again to run one function.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};

use ray_zerocopy_tests::memory::eventually;

use crate::{ends, forks, handles, launch, signals};

const ROLE: &str = "RAY_ZEROCOPY_TEST_ROLE";
/// Variable with the argument of a role, usually a path.
const SUBJECT: &str = "RAY_ZEROCOPY_TEST_SUBJECT";

/// Not a test of its own: the processes that the tests start.
#[test]
fn role_of_a_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.as_str() {
        "reaches main" => std::fs::write(subject(), "main").unwrap(),
        "runs a task" => launch::run_a_task(),
        "starts workers and fails" => launch::start_workers_and_fail(),
        "prints from a worker" => signals::print_from_a_worker(),
        "has a worker that aborts" => ends::have_a_worker_that_aborts(),
        "panics while an actor is busy" => ends::panic_while_an_actor_is_busy(),
        "forks" => forks::fork_and_use(),
        "serialises in a fork" => handles::serialise_in_a_fork(),
        "loses its runtime folder" => handles::lose_the_runtime_folder(),
        "listens for another user" => handles::listen(),
        "has no descriptors for its broker" => handles::have_no_descriptors(),
        "has no descriptors at first use" => handles::have_no_descriptors_at_first_use(),
        "starts workers that end at once" => ends::start_workers_that_end_at_once(),
        other => panic!("there is no role {other:?}"),
    }
}

/// The argument of this process's role.
pub(crate) fn subject() -> String {
    std::env::var(SUBJECT).expect("the role needs a subject")
}

/// A command that starts this executable with a role.
pub(crate) fn command(role: &str) -> Command {
    cast(Command::new("/proc/self/exe"), role)
}

/// Adds a role to a command that starts this executable.
pub(crate) fn cast(mut command: Command, role: &str) -> Command {
    command.args(["--exact", "role::role_of_a_process", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// Adds the argument of the role to a command.
pub(crate) fn with(mut command: Command, subject: impl AsRef<std::ffi::OsStr>) -> Command {
    command.env(SUBJECT, subject);
    command
}

/// Runs a command, which must succeed, and returns its output.
pub(crate) fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

/// Waits up to a minute for a process, and returns its status and its standard error.
pub(crate) fn end_of(mut child: Child) -> (ExitStatus, String) {
    let mut status = None;
    eventually("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).unwrap();
    }
    (status.unwrap(), text)
}

/// Starts a command with a pipe for its standard error.
pub(crate) fn start(mut command: Command) -> Child {
    command.stderr(Stdio::piped()).spawn().unwrap()
}
