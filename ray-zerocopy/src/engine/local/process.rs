//! Starting and reaping a worker process.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::protocol::Answer;
use super::transport::{Connection, Wait};
use super::worker::{ENVIRONMENT, VERSION};

/// What a worker calls itself, for `ps` and the like.
fn title(index: usize, program: &str) -> String {
    format!("{TITLE}{index} of {program}")
}

const TITLE: &str = "ray-zerocopy worker ";

/// The number of a worker and its program, if that is what a process calls itself.
pub(crate) fn titled(title: &str) -> Option<(usize, &str)> {
    let (index, program) = title.strip_prefix(TITLE)?.split_once(" of ")?;
    Some((index.parse().ok()?, program))
}

/// A worker process, seen from its owner. Killed and reaped when dropped.
pub(super) struct Process {
    child: Child,
    pub(super) connection: Connection,
}

impl Process {
    /// Starts this executable again as a worker, and waits until it answers.
    pub(super) fn start(index: usize, threads: usize, timeout: Duration) -> Result<Self, String> {
        let (ours, theirs) = Connection::pair().map_err(|error| format!("socketpair failed: {error}"))?;
        let name = std::env::current_exe().unwrap_or_default();
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // /proc/self/exe is this very file, even if a build has replaced it on disk since: see `sys::entry`.
        let child = Command::new("/proc/self/exe")
            .arg0(title(index, &name))
            .env(ENVIRONMENT, VERSION)
            .env("RAYON_NUM_THREADS", threads.to_string())
            // The worker's end of the socket is its standard input: inherited, and nowhere by name.
            .stdin(Stdio::from(theirs.into_fd()))
            // A Ctrl-C is for the owner: when it ends, its workers do.
            .process_group(0)
            .spawn()
            .map_err(|error| {
                format!("this executable could not be started again: {error}; is there memory, and a free process id?")
            })?;
        let mut process = Self { child, connection: ours };
        match process.connection.wait(Instant::now().checked_add(timeout)) {
            Ok(Wait::TimedOut) => Err(format!("it did not come up within {timeout:?}")),
            Ok(Wait::Ready) => match process.connection.receive::<Answer>() {
                Ok(Some(received)) if matches!(received.message, Answer::Ready) => Ok(process),
                Ok(None) => Err(format!(
                    "it ended before it was up ({}); does a constructor end the program before `main`?",
                    process.end()
                )),
                Ok(Some(received)) => Err(format!("it said {:?} before it was up", received.message)),
                Err(error) => Err(format!("its first words could not be read: {error}")),
            },
            Err(error) => Err(format!("waiting for it failed: {error}")),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// How the process ended; one that has hung up but does not end is killed.
    pub(super) fn end(&mut self) -> String {
        match self.wait(Duration::from_secs(2)) {
            Some(status) => describe(status),
            None => {
                self.kill();
                "it closed its socket without ending, and was killed".to_owned()
            }
        }
    }

    /// Waits for the end of the process. The connection has been closed or a shutdown was sent.
    pub(super) fn wait(&mut self, grace: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + grace;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    pub(super) fn kill(&mut self) {
        // An error means that it has ended, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn describe(status: ExitStatus) -> String {
    let hint = match status.signal() {
        Some(9) => ": killed by somebody, or by the kernel for want of memory, see `dmesg`",
        Some(6) => ": it aborted",
        Some(11) => ": an invalid access to memory, or a stack overflow",
        Some(7) => ": an access to memory behind the end of a file",
        _ => "",
    };
    format!("{status}{hint}")
}
