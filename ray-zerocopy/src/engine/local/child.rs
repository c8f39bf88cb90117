//! Child process, waited for and killed through a pidfd: the kernel may reuse a process id for
//! another process.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, waitid};

use crate::os::sys::pidfd;

/// Polling interval without a pidfd.
const LOOK: Duration = Duration::from_millis(2);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With a known status.
    Status(ExitStatus),
    /// The status is unknown: other code of this process, or the kernel, has reaped the child.
    StatusTaken,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Status(status) = self else {
            return f.write_str(
                "it ended, but its status is unknown: this process ignores SIGCHLD, or other code in it waits for every child",
            );
        };
        let hint = match status.signal() {
            Some(libc::SIGKILL) => ": killed by another process, or by the kernel when memory ran out; see `dmesg`",
            Some(libc::SIGABRT) => ": it aborted",
            Some(libc::SIGSEGV) => ": an invalid memory access, or a stack overflow",
            Some(libc::SIGBUS) => ": a memory access past the end of a mapped file",
            Some(libc::SIGSYS) => ": a system call that a seccomp filter denies",
            _ => "",
        };
        write!(f, "{status}{hint}")
    }
}

/// A child process. Killed and reaped when dropped.
pub(crate) struct Child {
    handle: Handle,
    ended: Option<Ended>,
}

/// Identity of a child: its process id and pidfd.
struct Handle {
    pid: Pid,
    /// `None` before Linux 5.3, or if a seccomp filter denies `pidfd_open`.
    pidfd: Option<OwnedFd>,
}

impl Child {
    /// Takes ownership of a process that was just started.
    pub(super) fn new(child: std::process::Child) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(child.id()).ok()?)?;
        let pidfd = pidfd::open_process(pid);
        // ESRCH means that the process has ended and was reaped. Other errors mean that pidfds are
        // not available.
        let ended = matches!(pidfd, Err(Errno::SRCH)).then_some(Ended::StatusTaken);
        Some(Self { handle: Handle { pid, pidfd: pidfd.ok() }, ended })
    }

    pub(super) fn raw_pid(&self) -> Pid {
        self.handle.pid
    }

    pub(super) fn pid(&self) -> u32 {
        self.handle.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Returns how the process ended, and reaps it. Returns `None` while it runs.
    pub(super) fn has_ended(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = self.handle.reaped(WaitIdOptions::NOHANG);
        }
        self.ended
    }

    /// Waits until the process ends, for at most `patience`.
    pub(super) fn wait(&mut self, patience: Duration) -> Option<Ended> {
        let until = Instant::now() + patience;
        loop {
            if let Some(ended) = self.has_ended() {
                return Some(ended);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            match &self.handle.pidfd {
                Some(pidfd) => {
                    let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                    // The loop checks the process whatever `poll` returns.
                    let _looked = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout));
                }
                None => std::thread::sleep(LOOK.min(left)),
            }
        }
    }

    /// Kills the process, unless it has ended.
    pub(super) fn kill(&mut self) {
        if self.has_ended().is_some() {
            return;
        }
        // An error means that the process has ended meanwhile.
        let _ended = match &self.handle.pidfd {
            Some(pidfd) => pidfd::kill(pidfd),
            None => kill_process(self.handle.pid, Signal::KILL),
        };
    }

    /// Kills the process and waits until it is gone. If it does not exit in time, because it is
    /// blocked in the kernel on a device or a network file system, a thread reaps it later.
    pub(super) fn end(mut self, patience: Duration) {
        self.reap(patience);
    }

    fn reap(&mut self, patience: Duration) {
        self.kill();
        if self.wait(patience).is_some() {
            return;
        }
        let left = Handle { pid: self.handle.pid, pidfd: self.handle.pidfd.take() };
        // The thread reaps it from here on.
        self.ended = Some(Ended::StatusTaken);
        let thread = std::thread::Builder::new().name("ray-zerocopy reaper".to_owned()).stack_size(REAPER_STACK);
        // If the thread cannot start, the child stays a zombie until this process ends. That costs
        // only a process id.
        drop(thread.spawn(move || left.reaped(WaitIdOptions::empty())));
    }
}

impl Handle {
    /// Reaps the process and returns how it ended. Waits for that, unless `options` has `NOHANG`.
    fn reaped(&self, options: WaitIdOptions) -> Option<Ended> {
        let which = self.pidfd.as_ref().and_then(pidfd::wait_id).unwrap_or(WaitId::Pid(self.pid));
        loop {
            let status = match waitid(which.clone(), WaitIdOptions::EXITED | options) {
                // Linux before 5.4 has pidfds, but `waitid` does not accept them.
                Err(Errno::INVAL) => waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED | options),
                status => status,
            };
            match status {
                // If another thread of this process traces the child, stops are reported too.
                Ok(Some(status)) => match exit_status(&status) {
                    Some(status) => return Some(Ended::Status(status)),
                    None if options.contains(WaitIdOptions::NOHANG) => return None,
                    None => {}
                },
                Err(Errno::CHILD) => return Some(self.status_taken()),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    fn status_taken(&self) -> Ended {
        let status = self.pidfd.as_ref().and_then(pidfd::status_after_reaping);
        status.map_or(Ended::StatusTaken, |status| Ended::Status(ExitStatus::from_raw(status)))
    }
}

/// Stack size of the thread that reaps. It only waits.
const REAPER_STACK: usize = 64 * 1024;

/// Time that `drop` waits for a killed child before a thread takes over. Usually it takes
/// milliseconds.
const DROPPED: Duration = Duration::from_millis(100);

impl Drop for Child {
    fn drop(&mut self) {
        // A child that is killed but not reaped is a zombie for as long as this process lives.
        self.reap(DROPPED);
    }
}

/// Converts a status to the standard library's type, which has a `Display`. Returns `None` if the
/// process has not ended.
fn exit_status(status: &WaitIdStatus) -> Option<ExitStatus> {
    const CORE_DUMPED: i32 = 0x80;
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) if status.dumped() => signal | CORE_DUMPED,
        (None, signal) => signal?,
    };
    Some(ExitStatus::from_raw(raw))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};
    use std::time::Duration;

    use super::Child;
    use super::Ended;

    const LONG: Duration = Duration::from_secs(60);

    fn start(script: &str) -> Child {
        Child::new(Command::new("sh").args(["-c", script]).spawn().unwrap()).unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts processes")]
    fn exit_status_of_a_child_is_reported() {
        let mut child = start("exit 7");
        let ended = child.wait(LONG).unwrap();
        assert_eq!(ended, Ended::Status(ExitStatus::from_raw(7 << 8)));
        assert_eq!(ended.to_string(), "exit status: 7");
        // The status can be read repeatedly, and killing an ended process has no effect.
        child.kill();
        assert_eq!(child.has_ended(), Some(ended));

        let mut child = start("kill -ABRT $$");
        assert!(child.wait(LONG).unwrap().to_string().starts_with("signal: 6 (SIGABRT)"));
        let mut child = start("exec sleep 600");
        assert_eq!(child.has_ended(), None);
        assert_eq!(child.wait(Duration::from_millis(1)), None);
        child.kill();
        assert!(child.wait(LONG).unwrap().to_string().starts_with("signal: 9 (SIGKILL)"));
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts processes")]
    fn dropped_child_does_not_become_a_zombie() {
        let child = start("exec sleep 600");
        let stat = format!("/proc/{}/stat", child.pid());
        assert!(std::fs::exists(&stat).unwrap());
        drop(child);
        // Reaped at once, or later by a thread.
        let until = std::time::Instant::now() + LONG;
        while std::fs::exists(&stat).unwrap() {
            assert!(std::time::Instant::now() < until, "{:?}", std::fs::read_to_string(&stat));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "starts processes")]
    fn status_reaped_by_other_code_is_reported() {
        let mut child = start("kill -SEGV $$");
        let pid = child.handle.pid;
        while rustix::process::waitid(
            rustix::process::WaitId::Pid(pid),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG,
        )
        .unwrap()
        .is_none()
        {}
        let ended = child.wait(LONG).unwrap().to_string();
        assert!(ended.starts_with("signal: 11 (SIGSEGV)") || ended.contains("ignores SIGCHLD"), "{ended}");
    }
}
