//! Runs test programs in parallel, each with its output in a separate file.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::failures;
use crate::shell::target;

/// The interval of progress lines.
const INTERVAL: Duration = Duration::from_secs(30);

/// A program to run.
pub(crate) struct Program {
    pub name: String,
    pub command: Command,
}

enum Event {
    Started { name: String },
    Ended { name: String, result: Result<ExitStatus>, output: Vec<u8> },
}

/// Runs programs, at most `limit` at a time. Prints the output of each when it ends.
///
/// All of them run, and the error names those that failed, with their reasons. The outputs stay in
/// `target/xtask/NAME.log`.
pub(crate) fn run(programs: Vec<Program>, limit: usize) -> Result<()> {
    let logs = target().join("xtask");
    fs::create_dir_all(&logs).with_context(|| format!("{} cannot be created", logs.display()))?;
    let total = programs.len();
    let queue = Mutex::new(programs.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (sender, events) = channel();
    let failed = thread::scope(|scope| {
        for _ in 0..limit.min(total) {
            let (next, logs, sender) = (&next, &logs, sender.clone());
            scope.spawn(move || {
                while let Some(Program { name, command }) = next() {
                    let log = logs.join(format!("{name}.log"));
                    sender.send(Event::Started { name: name.clone() }).ok();
                    let result = run_one(command, &log);
                    let output = fs::read(&log).unwrap_or_default();
                    sender.send(Event::Ended { name, result, output }).ok();
                }
            });
        }
        drop(sender);
        print(&events, total)
    });
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{} of {total} programs failed: {}", failed.len(), failed.join("\n"));
}

/// Runs a program to its end, with its output in a file.
///
/// The output is not a pipe: daemons that outlive the program would keep a pipe open.
fn run_one(mut command: Command, log: &Path) -> Result<ExitStatus> {
    let file = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
    let errors = file.try_clone().context("the log file cannot be shared")?;
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    command.status().context("it could not be started")
}

/// Prints the events of all programs. Returns the names of those that failed, with what failed in them.
fn print(events: &Receiver<Event>, total: usize) -> Vec<String> {
    let mut running: Vec<(String, Instant)> = Vec::new();
    let mut failed = Vec::new();
    let mut ended = 0;
    loop {
        match events.recv_timeout(INTERVAL) {
            Ok(Event::Started { name }) => {
                eprintln!("-- {name} started");
                running.push((name, Instant::now()));
            }
            Ok(Event::Ended { name, result, output }) => {
                ended += 1;
                let started = running.iter().find(|(other, _)| *other == name).map(|(_, started)| *started);
                running.retain(|(other, _)| *other != name);
                let seconds = started.map_or(0, |started| started.elapsed().as_secs());
                let outcome = match &result {
                    Ok(status) if status.success() => "passed".to_owned(),
                    Ok(status) => format!("FAILED ({status})"),
                    Err(error) => format!("FAILED ({error:#})"),
                };
                eprintln!("{}", String::from_utf8_lossy(&output).trim_end());
                eprintln!("-- {ended} of {total}: {name} {outcome} in {seconds} s; its output is above");
                if !outcome.starts_with("passed") {
                    let reasons = failures::of(&String::from_utf8_lossy(&output));
                    failed.push([vec![name], reasons].concat().join("\n  "));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let running =
                    running.iter().map(|(name, started)| format!("{name} ({} s)", started.elapsed().as_secs()));
                eprintln!("-- running: {}", running.collect::<Vec<_>>().join(", "));
            }
            Err(RecvTimeoutError::Disconnected) => return failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::{Program, run};

    fn program(name: &str, script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program { name: format!("test-of-side-by-side-{name}"), command }
    }

    #[test]
    fn all_run_and_failures_are_named() {
        run(Vec::new(), 2).unwrap();
        run(vec![program("a", "echo a"), program("b", "echo b >&2")], 2).unwrap();
        let missing = Program { name: "missing".to_owned(), command: Command::new("/no/such/program") };
        let error = run(vec![program("c", "exit 3"), missing, program("d", "true")], 1).unwrap_err().to_string();
        assert_eq!(error, "2 of 3 programs failed: test-of-side-by-side-c\nmissing");
    }

    #[test]
    fn two_run_at_once() {
        // Each waits for the other one's file.
        let folder = std::env::temp_dir().join(format!("xtask-side-by-side-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let meet = |own: &str, other: &str| {
            let (own, other) = (folder.join(own), folder.join(other));
            format!("touch {}; until [ -e {} ]; do sleep 0.01; done", own.display(), other.display())
        };
        let started = Instant::now();
        run(vec![program("e", &meet("e", "f")), program("f", &meet("f", "e"))], 2).unwrap();
        assert!(started.elapsed() < Duration::from_secs(60));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
