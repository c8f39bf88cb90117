//! Security of the variable that makes a program a Ray worker: only Ray can use it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ray_zerocopy::ray::{Cluster, RayError};
use ray_zerocopy_tests::process_tree::{ROLE, copy, role_of, run, succeeds};

/// Not a test of its own: the processes that the tests below start.
#[test]
fn role() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let error = Cluster::local().quiet().start().unwrap_err();
    println!("REFUSED {error}");
    assert!(matches!(error, RayError::Privileged), "{error:?}");
}

const VARIABLE: &str = "RAY_ZEROCOPY_RAY_WORKER";

/// An attacker's Python code, in a file with the name of Ray's worker script.
fn script(folder: &Path) -> PathBuf {
    let folder = folder.join("ray/_private/workers");
    std::fs::create_dir_all(&folder).unwrap();
    let script = folder.join("default_worker.py");
    std::fs::write(&script, "import os\nprint('PYTHON RUNS AS', os.geteuid(), flush=True)\n").unwrap();
    script
}

/// Runs the command as an unprivileged user.
fn as_nobody(process: &mut Command) -> &mut Command {
    process.uid(65534).gid(65534).current_dir("/")
}

#[test]
fn variable_is_ignored_in_a_setuid_program() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can make a setuid file");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (program, script) = (copy(folder.path()), script(folder.path()));
    let python = Path::new("/usr/bin/python3");
    let attack = || {
        let mut attack = Command::new(&program);
        attack.arg(&script).env(VARIABLE, python);
        attack
    };
    // Without privileges, the program becomes a worker.
    let text = succeeds(&mut attack());
    assert!(text.contains("PYTHON RUNS AS 0"), "{text}");

    chown(&program, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let (status, text) = run(as_nobody(&mut attack()));
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(
        !text.contains("PYTHON RUNS") && text.contains("the program has privileges that its caller lacks"),
        "{text}"
    );
    // The program itself works with any value of the variable.
    for value in ["", "x", "/usr/bin/python3"] {
        let mut list = Command::new(&program);
        let text = succeeds(as_nobody(list.arg("--list").env(VARIABLE, value)));
        assert!(text.contains("role: test"), "{text}");
    }
    let text = succeeds(as_nobody(&mut role_of(&program, "joins")));
    assert!(text.contains("REFUSED this program has privileges that its caller lacks"), "{text}");
}

#[test]
fn variable_alone_does_not_make_a_worker() {
    for value in ["", "python3", "/usr/bin/python3"] {
        let text = succeeds(Command::new("/proc/self/exe").arg("--list").env(VARIABLE, value));
        assert!(text.contains("role: test"), "{text}");
    }
    // `ray-zerocopy-python/tests/test_worker_variable.py` tests a process that already runs Python.
}

#[test]
fn worker_without_python_never_reaches_main() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path());
    let worker = |python: &str| {
        let mut worker = Command::new("/proc/self/exe");
        worker.arg(&script).env(VARIABLE, python).env("PYTHONHOME", "/not/there").env(ROLE, "works");
        worker
    };
    // The Python interpreter cannot start.
    let (status, text) = run(&mut worker("/usr/bin/python3"));
    assert!(!status.success() && !text.contains("running 0 tests"), "{status}: {text}");
    // The path of Python does not exist.
    let (status, text) = run(&mut worker("/not/there/python3"));
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("started as a Ray worker") && text.contains("/not/there/python3"), "{text}");
    assert!(!text.contains("running 0 tests"), "{text}");
}
