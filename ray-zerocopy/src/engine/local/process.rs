//! Starting a worker process.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::child::Child;
use super::executable;
use super::protocol::Answer;
use super::transport::{Connection, Wait};
use super::worker::{ENVIRONMENT, VERSION};
use crate::engine::settings::Settings;
use crate::os::{limits, procfs};

/// How long a worker that has hung up may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// How long a worker that was killed may take to go. It is gone in milliseconds, unless it waits in the kernel.
const KILLED: Duration = Duration::from_secs(2);
/// How often a start that is waited for is looked at, whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// A worker process, seen from its owner. Killed when dropped.
pub(super) struct Process(Child);

impl Process {
    /// Starts this executable again as a worker, or another program, and waits until it answers, or until the start is not wanted any
    /// more.
    ///
    /// The process ends with the thread that calls this.
    pub(super) fn start(
        index: usize,
        settings: &Settings,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(Self, Connection), String> {
        let timeout = settings.start_timeout;
        let (ours, theirs) = Connection::pair().map_err(|error| limits::named("socketpair", &error).to_string())?;
        let child = spawn(index, settings, theirs)?;
        let mut process = Self(Child::new(child).ok_or("the system gave it a process id that cannot be")?);
        let until = Instant::now().checked_add(timeout);
        loop {
            let look = Instant::now() + LOOK;
            match ours.wait(Some(until.map_or(look, |until| until.min(look)))) {
                Ok(Wait::Ready) => break,
                Ok(Wait::TimedOut) if !is_wanted() => return Err("the engine is being shut down".to_owned()),
                Ok(Wait::TimedOut) if until.is_some_and(|until| until <= Instant::now()) => {
                    return Err(format!("it did not come up within {timeout:?}"));
                }
                Ok(Wait::TimedOut) => {}
                Err(error) => return Err(format!("waiting for it failed: {error}")),
            }
        }
        match ours.receive::<(u64, Answer)>() {
            Ok(Some(received)) => match received.message.1 {
                Answer::Ready => Ok((process, ours)),
                Answer::NotReady(reason) => Err(format!("it cannot work: {reason}")),
                other => Err(format!("it said {other:?} before it was up")),
            },
            Ok(None) => {
                Err(format!("it ended before it was up ({}); {}", process.end(), hint(settings.program.as_deref())))
            }
            Err(error) => Err(format!("its first words could not be read: {error}")),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Whether the process has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.has_ended().is_some()
    }

    /// Whether the process is stopped by a signal. One that a debugger holds is not.
    pub(super) fn is_stopped(&self) -> bool {
        procfs::state(self.pid()) == Some('T')
    }

    /// How the process ended; one that has hung up but does not end is killed.
    pub(super) fn end(&mut self) -> String {
        if let Some(ended) = self.0.wait(GRACE) {
            return ended.to_string();
        }
        self.kill();
        "it closed its socket without ending, and was killed".to_owned()
    }

    /// Kills the process, and waits until it is gone, unless it waits in the kernel.
    pub(super) fn kill(&mut self) {
        self.0.kill();
        let _gone = self.0.wait(KILLED);
    }

    /// Kills the process; one that does not go is left behind, to be reaped when it does.
    pub(super) fn leave(self) {
        self.0.end(KILLED);
    }
}

/// Starts the process with its end of the connection.
fn spawn(index: usize, settings: &Settings, theirs: Connection) -> Result<std::process::Child, String> {
    let name = std::env::current_exe().unwrap_or_default();
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let threads = settings.threads_per_worker().to_string();
    let mut command = match &settings.program {
        None => executable::command()?,
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
    command
        .arg0(crate::os::title::title(index, &name))
        .env(ENVIRONMENT, VERSION)
        .env("RAYON_NUM_THREADS", &threads)
        // LibTorch computes with OpenMP's threads.
        .env("OMP_NUM_THREADS", &threads)
        // The worker's end of the socket is its standard input: inherited, and nowhere by name.
        .stdin(Stdio::from(theirs.into_fd()))
        // A Ctrl-C is for the owner: when it ends, its workers do.
        .process_group(0)
        .spawn()
        .map_err(|error| {
            let hint = limits::hint(&error).unwrap_or("is there memory, and a free process id?");
            format!("{}: {error}; {hint}", what())
        })
    // `command` goes here: it holds the worker's end of the socket, whose closing is how the end of the worker is seen.
}

/// What may be behind a worker that ends before it is up.
fn hint(program: Option<&Path>) -> String {
    match program {
        None => "what it printed says more; does a constructor end the program before `main`?".to_owned(),
        Some(program) => format!("is `{}` a program with this version of ray-zerocopy?", program.display()),
    }
}
