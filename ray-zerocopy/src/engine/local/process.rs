//! Starting and reaping a worker process.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::protocol::Answer;
use super::transport::{Connection, Wait};
use super::worker::{ENVIRONMENT, VERSION};
use super::{Settings, limits};

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
pub(super) struct Process(Child);

impl Process {
    /// Starts this executable again as a worker, or another program, and waits until it answers.
    ///
    /// The process ends with the thread that calls this.
    pub(super) fn start(index: usize, settings: &Settings) -> Result<(Self, Connection), String> {
        let (threads, timeout) = (settings.threads_per_worker(), settings.start_timeout);
        let (ours, theirs) = Connection::pair().map_err(|error| limits::named("socketpair", &error).to_string())?;
        let name = std::env::current_exe().unwrap_or_default();
        let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // /proc/self/exe is this very file, even if a build has replaced it on disk since: see `sys::entry`.
        let mut command = match &settings.program {
            None => Command::new("/proc/self/exe"),
            Some(program) => Command::new(program),
        };
        if settings.program.is_some() {
            // For one that does not know what it was started for, and looks at its arguments.
            command.arg("worker");
        }
        let what = || match &settings.program {
            None => "this executable could not be started again".to_owned(),
            Some(program) => format!("`{}` could not be started", program.display()),
        };
        let child = command
            .arg0(title(index, &name))
            .env(ENVIRONMENT, VERSION)
            .env("RAYON_NUM_THREADS", threads.to_string())
            // LibTorch computes with OpenMP's threads.
            .env("OMP_NUM_THREADS", threads.to_string())
            // The worker's end of the socket is its standard input: inherited, and nowhere by name.
            .stdin(Stdio::from(theirs.into_fd()))
            // A Ctrl-C is for the owner: when it ends, its workers do.
            .process_group(0)
            .spawn()
            .map_err(|error| {
                let hint = limits::hint(&error).unwrap_or("is there memory, and a free process id?");
                format!("{}: {error}; {hint}", what())
            })?;
        // It holds the worker's end of the socket, whose closing is how the end of the worker is seen.
        drop(command);
        let mut process = Self(child);
        match ours.wait(Instant::now().checked_add(timeout)) {
            Ok(Wait::TimedOut) => Err(format!("it did not come up within {timeout:?}")),
            Ok(Wait::Ready) => match ours.receive::<(u64, Answer)>() {
                Ok(Some(received)) if matches!(received.message.1, Answer::Ready) => Ok((process, ours)),
                Ok(Some(received)) => match received.message.1 {
                    Answer::NotReady(reason) => Err(format!("it cannot work: {reason}")),
                    other => Err(format!("it said {other:?} before it was up")),
                },
                Ok(None) => Err(format!(
                    "it ended before it was up ({}); {}",
                    process.end(),
                    match &settings.program {
                        None => "does a constructor end the program before `main`?".to_owned(),
                        Some(program) =>
                            format!("is `{}` a program with this version of ray-zerocopy?", program.display()),
                    }
                )),
                Err(error) => Err(format!("its first words could not be read: {error}")),
            },
            Err(error) => Err(format!("waiting for it failed: {error}")),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether the process has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }

    /// Whether the process is stopped by a signal. One that a debugger holds is not.
    pub(super) fn is_stopped(&self) -> bool {
        // The name stands in parentheses, may have any in it, and the state follows.
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))
            .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
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

    /// Waits for the end of the process.
    fn wait(&mut self, grace: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + grace;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    pub(super) fn kill(&mut self) {
        // An error means that it has ended, which is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
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
