//! What a process has started, and what its children have: so that a test can see that nothing is left.
//!
//! For tests that start themselves again as a process of its own kind, one at a time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, wait};

use crate::memory::{eventually, is_alive};

/// The right to have children. Whatever outlives its own parent becomes a child of this process.
pub struct Family(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Family {
    /// Waits until no other test of this process has children.
    pub fn alone() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        set_child_subreaper(Some(getpid())).expect("any process may be one");
        Self(guard)
    }

    /// All that live and descend from this process: the id and the command of each.
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

    /// Waits until nothing lives that descends from this process. To be called when the children that it started itself have been waited for.
    pub fn has_gone(&self) {
        eventually("nothing is left running", || {
            // The dead wait for their parent, which this process has become.
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let members = self.members();
            if !members.is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            members.is_empty()
        });
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        // A test that failed leaves nothing to the next one.
        for (pid, command) in self.members() {
            eprintln!("left running: {pid} {command}");
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// What a process is called by who started it, or by itself.
fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

/// The name of the variable that tells a test program to play a role.
pub const ROLE: &str = "RAY_ZEROCOPY_TEST_ROLE";

/// This program once more, with a role. Its test `role` has to look for [`ROLE`].
pub fn again(role: &str) -> Command {
    let mut process = Command::new("/proc/self/exe");
    process.args(["--exact", "role", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process
}

/// Runs a process to its end, and sees that nothing of it is left. Gives its end, and what it has printed.
pub fn run(process: &mut Command) -> (ExitStatus, String) {
    let family = Family::alone();
    let output = process.stdin(Stdio::null()).output().expect("it can be started");
    family.has_gone();
    let text = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    (output.status, text)
}

/// As [`run`], for a process that is to succeed.
pub fn succeeds(process: &mut Command) -> String {
    let (status, text) = run(process);
    assert!(status.success(), "{status}: {text}");
    text
}

/// A copy of this program, in a folder that everybody may look into then.
pub fn copy(folder: &Path) -> PathBuf {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("the folder is this process's");
    let copy = folder.join("program");
    fs::copy("/proc/self/exe", &copy).expect("there is room");
    copy
}

/// A copy of this program with a role, as [`again`].
pub fn role_of(program: &Path, role: &str) -> Command {
    let mut process = Command::new(program);
    process.args(["--exact", "role", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    process
}
