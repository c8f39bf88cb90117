//! Descendants of the test process, so that a test can check that all of them have ended.
//!
//! For test programs that start themselves again with a role. One test at a time has children.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, wait};

use crate::memory::{eventually, is_alive};

/// Exclusive permission to start children. This process is their subreaper: an orphan among the
/// descendants becomes its child.
pub struct ProcessTree(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl ProcessTree {
    /// Waits until no other test of this process has the permission.
    pub fn exclusive() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        set_child_subreaper(Some(getpid())).expect("any process may be one");
        Self(guard)
    }

    /// Id and command line of each living descendant of this process.
    pub fn members(&self) -> Vec<(u32, String)> {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .expect("there is a /proc")
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                let parent = stat.rsplit(") ").next()?.split_whitespace().nth(1)?.parse().ok()?;
                Some((pid, parent))
            })
            .collect();
        let mut found = vec![std::process::id()];
        let mut at = 0;
        while let Some(&parent) = found.get(at) {
            found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        let living = found.into_iter().skip(1).filter(|pid| is_alive(*pid));
        living.map(|pid| (pid, command(pid))).collect()
    }

    /// Waits until no descendant of this process is alive. Wait for the direct children first: this
    /// reaps all children.
    pub fn wait_until_gone(&self) {
        eventually("nothing is left running", || {
            // Orphans that have ended are zombies until this process, their subreaper, waits for
            // them.
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let members = self.members();
            if !members.is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            members.is_empty()
        });
    }
}

impl Drop for ProcessTree {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // After a failed test, end its processes, so that the next test starts without them.
        for (pid, command) in self.members() {
            eprintln!("left running: {pid} {command}");
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// The command line of a process.
fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

/// The environment variable that gives a test program a role.
pub const ROLE: &str = "RAY_ZEROCOPY_TEST_ROLE";

/// A command that starts this test program again with a role. Its test `role` has to read [`ROLE`].
pub fn again(role: &str) -> Command {
    let mut process = Command::new("/proc/self/exe");
    process.args(["--exact", "role", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process
}

/// Runs a process to its end and checks that none of its children are left. Returns its status and
/// its output.
pub fn run(process: &mut Command) -> (ExitStatus, String) {
    let tree = ProcessTree::exclusive();
    let output = process.stdin(Stdio::null()).output().expect("it can be started");
    tree.wait_until_gone();
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    (output.status, text)
}

/// Like [`run`], but fails unless the process succeeds.
pub fn succeeds(process: &mut Command) -> String {
    let (status, text) = run(process);
    assert!(status.success(), "{status}: {text}");
    text
}

/// Copies this program into the folder, which it makes readable for all users.
pub fn copy(folder: &Path) -> PathBuf {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("the folder is this process's");
    let copy = folder.join("program");
    fs::copy("/proc/self/exe", &copy).expect("there is room");
    copy
}

/// Like [`again`], for a copy of this program.
pub fn role_of(program: &Path, role: &str) -> Command {
    let mut process = Command::new(program);
    process.args(["--exact", "role", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    process
}
