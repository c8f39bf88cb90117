//! Starts a worker process and ends it.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::child::Child;
use super::executable;
use super::protocol::{Answer, Request};
use super::recycled::Side;
use super::shared_area::SharedArea;
use super::transport::{Connection, Wait};
use super::worker::{ENVIRONMENT, VERSION};
use crate::engine::message::Outgoing;
use crate::engine::settings::Settings;
use crate::engine::trace::setup;
use crate::os::{limits, procfs};

/// Time for a worker to exit after it has closed its socket.
const GRACE: Duration = Duration::from_secs(2);
/// Time for a killed worker to exit. It takes milliseconds, unless the process is blocked in the
/// kernel.
const KILLED: Duration = Duration::from_secs(2);
/// Interval at which a pending start checks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Owner's handle of a worker process. Kills the process when dropped.
pub(super) struct Process(Child);

impl Process {
    /// Starts this executable, or another program, as a worker. Waits until the worker answers, or
    /// until `is_wanted` returns `false`.
    ///
    /// The process ends with the thread that calls this.
    pub(super) fn start(
        index: usize,
        settings: &Settings,
        is_wanted: impl Fn() -> bool,
    ) -> Result<(Self, Connection), String> {
        let timeout = settings.start_timeout;
        let (ours, theirs) = Connection::pair().map_err(|error| limits::named("socketpair", &error).to_string())?;
        let share = SharedArea::create().and_then(|(area, descriptor)| {
            let recycled = settings.recycled_memory.unwrap_or(0);
            let ours = ours.with_shared(area).with_recycled(Side::Owner, recycled);
            // The worker's end is still open here, so the packet waits in the socket.
            // Another program does not have the function.
            let set_up = if settings.program.is_none() { setup::get() } else { None };
            ours.send(&(0_u64, Request::Share { recycled, set_up }), &Outgoing::default(), &[descriptor.as_fd()])?;
            Ok(ours)
        });
        let ours = share.map_err(|error| format!("the memory that it shares with this process: {error}"))?;
        let child = spawn(index, settings, theirs)?;
        let mut process = Self(Child::new(child).ok_or("the system returned an invalid process id")?);
        // Before it starts threads to compute with, which inherit both.
        settings.placement(index).apply(Some(process.0.raw_pid()))?;
        let until = Instant::now().checked_add(timeout);
        loop {
            let look = Instant::now() + LOOK;
            match ours.wait(Some(until.map_or(look, |until| until.min(look)))) {
                Ok(Wait::Ready) => break,
                Ok(Wait::TimedOut) if !is_wanted() => return Err("the engine is being shut down".to_owned()),
                Ok(Wait::TimedOut) if until.is_some_and(|until| until <= Instant::now()) => {
                    return Err(format!("it did not start within {timeout:?}"));
                }
                Ok(Wait::TimedOut) => {}
                Err(error) => return Err(format!("waiting for it failed: {error}")),
            }
        }
        match ours.receive::<(u64, Answer)>() {
            Ok(Some(received)) => match received.message.1 {
                Answer::Ready => Ok((process, ours)),
                Answer::NotReady(reason) => Err(format!("it cannot work: {reason}")),
                other => Err(format!("it sent {other:?} instead of `Ready`")),
            },
            Ok(None) => {
                Err(format!("it ended before it was ready ({}); {}", process.end(), hint(settings.program.as_deref())))
            }
            Err(error) => Err(format!("its first message could not be read: {error}")),
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// Returns `true` if the process has ended.
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.has_ended().is_some()
    }

    /// Returns `true` if the process is stopped by a signal. A stop by a debugger does not count.
    pub(super) fn is_stopped(&self) -> bool {
        procfs::state(self.pid()) == Some('T')
    }

    /// Describes how the process ended. Kills a process that has closed its socket but does not
    /// exit.
    pub(super) fn end(&mut self) -> String {
        if let Some(ended) = self.0.wait(GRACE) {
            return ended.to_string();
        }
        self.kill();
        "it closed its socket without exiting, and was killed".to_owned()
    }

    /// Kills the process, and waits until it is gone, unless it is blocked in the kernel.
    pub(super) fn kill(&mut self) {
        self.0.kill();
        let _gone = self.0.wait(KILLED);
    }

    /// Kills the process. If it does not exit in time, a thread reaps it later.
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
        // For programs that choose their role by their arguments.
        command.arg("worker");
    }
    let what = || match &settings.program {
        None => "this executable could not be started as a worker".to_owned(),
        Some(program) => format!("`{}` could not be started", program.display()),
    };
    command
        .arg0(crate::os::title::title(index, &name))
        .env(ENVIRONMENT, VERSION)
        .env("RAYON_NUM_THREADS", &threads)
        // LibTorch computes with OpenMP's threads.
        .env("OMP_NUM_THREADS", &threads)
        // The worker inherits its end of the socket as standard input, so the socket needs no name.
        .stdin(Stdio::from(theirs.into_fd()))
        // Ctrl-C signals the owner only. Workers end when the owner does.
        .process_group(0)
        .spawn()
        .map_err(|error| {
            let hint = limits::hint(&error).unwrap_or("check the free memory and the limits on processes");
            format!("{}: {error}; {hint}", what())
        })
    // `command` is dropped here. It holds the worker's end of the socket, and the owner detects the
    // end of a worker by EOF.
}

/// Likely cause if a worker ends before it is ready.
fn hint(program: Option<&Path>) -> String {
    match program {
        None => "see its standard error; does a constructor end the program before `main`?".to_owned(),
        Some(program) => format!("is `{}` a program with this version of ray-zerocopy?", program.display()),
    }
}
