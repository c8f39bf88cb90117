//! Who may turn a program into a worker of Ray's: Ray, and nothing and nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ray_zerocopy::ray::{Cluster, RayError};
use ray_zerocopy_tests::family::{ROLE, copy, role_of, run, succeeds};

/// Not a test of its own: what a test below starts.
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

/// What an attacker would have Python run, under the name of Ray's own script.
fn script(folder: &Path) -> PathBuf {
    let folder = folder.join("ray/_private/workers");
    std::fs::create_dir_all(&folder).unwrap();
    let script = folder.join("default_worker.py");
    std::fs::write(&script, "import os\nprint('PYTHON RUNS AS', os.geteuid(), flush=True)\n").unwrap();
    script
}

/// As an ordinary user.
fn as_nobody(process: &mut Command) -> &mut Command {
    process.uid(65534).gid(65534).current_dir("/")
}

#[test]
fn the_variable_gives_nobody_the_privileges_of_a_program() {
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
    // What it looks like without privileges: a worker.
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
    // It can be used for what it is for, whatever the variable says.
    for value in ["", "x", "/usr/bin/python3"] {
        let mut list = Command::new(&program);
        let text = succeeds(as_nobody(list.arg("--list").env(VARIABLE, value)));
        assert!(text.contains("role: test"), "{text}");
    }
    let text = succeeds(as_nobody(&mut role_of(&program, "joins")));
    assert!(text.contains("REFUSED this program has privileges that its caller lacks"), "{text}");
}

#[test]
fn the_variable_alone_makes_no_worker() {
    for value in ["", "python3", "/usr/bin/python3"] {
        let text = succeeds(Command::new("/proc/self/exe").arg("--list").env(VARIABLE, value));
        assert!(text.contains("role: test"), "{text}");
    }
    // In a process that runs Python already: see `ray-zerocopy-python/tests/test_worker_variable.py`.
}

#[test]
fn a_worker_that_cannot_be_one_never_reaches_main() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path());
    let worker = |python: &str| {
        let mut worker = Command::new("/proc/self/exe");
        worker.arg(&script).env(VARIABLE, python).env("PYTHONHOME", "/not/there").env(ROLE, "works");
        worker
    };
    // Python's interpreter cannot start.
    let (status, text) = run(&mut worker("/usr/bin/python3"));
    assert!(!status.success() && !text.contains("running 0 tests"), "{status}: {text}");
    // There is no Python.
    let (status, text) = run(&mut worker("/not/there/python3"));
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("started as a worker of Ray's") && text.contains("/not/there/python3"), "{text}");
    assert!(!text.contains("running 0 tests"), "{text}");
}
