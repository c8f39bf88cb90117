//! Progress lines for child processes whose own output would be noise.

use std::fs::{self, File};
use std::io::IsTerminal;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell::{shown, target};

/// How often the child process is polled.
const POLL: Duration = Duration::from_millis(100);
/// Commands that are faster than this print nothing.
const QUIET: Duration = Duration::from_secs(2);
/// The interval of progress lines where standard error is not a terminal.
const INTERVAL: Duration = Duration::from_secs(30);
/// How many lines of the log an error message shows.
const TAIL: usize = 20;

/// Runs a command with its output in `target/xtask/LABEL.log`, and shows the elapsed time.
///
/// The error of a command that fails has the end of the log.
pub(crate) fn run(label: &str, mut command: Command) -> Result<()> {
    let folder = target().join("xtask");
    let log = folder.join(format!("{label}.log"));
    let created = fs::create_dir_all(&folder).and_then(|()| File::create(&log));
    let output = created.with_context(|| format!("{} cannot be written", log.display()))?;
    let errors = output.try_clone().context("the log file cannot be shared")?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().with_context(|| format!("`{program}` could not be started; is it installed?"))?;
    let mut line = Line::new(label);
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("`{program}` cannot be waited for"))? {
            break status;
        }
        line.update();
        thread::sleep(POLL);
    };
    line.clear();
    if !status.success() {
        let text = fs::read(&log).unwrap_or_default();
        bail!("`{}` failed: {status}; {} ends with:\n{}", shown(&command), log.display(), tail(&text));
    }
    Ok(())
}

/// The last lines of a log.
fn tail(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// The progress line. A terminal has one that is redrawn; a file gets a new one at each interval.
struct Line<'a> {
    label: &'a str,
    started: Instant,
    /// When the line was last written, as time since the start.
    written: Duration,
    is_terminal: bool,
    is_drawn: bool,
}

impl<'a> Line<'a> {
    fn new(label: &'a str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { label, started: Instant::now(), written: Duration::ZERO, is_terminal, is_drawn: false }
    }

    fn update(&mut self) {
        let elapsed = self.started.elapsed();
        let interval = if self.is_terminal { Duration::from_secs(1) } else { INTERVAL };
        if elapsed < QUIET || elapsed - self.written < interval {
            return;
        }
        self.written = elapsed;
        let text = format!("      {}: running for {} s", self.label, elapsed.as_secs());
        if self.is_terminal {
            eprint!("\r{text}\x1b[K");
            self.is_drawn = true;
        } else {
            eprintln!("{text}");
        }
    }

    fn clear(&self) {
        if self.is_drawn {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{TAIL, run, tail};

    #[test]
    fn error_has_the_end_of_the_log() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let error = run("test-of-progress", command).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("out\nerr"), "{error}");
        let missing = run("test-of-progress-missing", Command::new("/no/such/program")).unwrap_err().to_string();
        assert!(missing.contains("could not be started"), "{missing}");
    }

    #[test]
    fn tail_is_short() {
        let log: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert_eq!(tail(log.as_bytes()).lines().count(), TAIL);
        assert!(tail(log.as_bytes()).ends_with("99"));
        assert_eq!(tail(b""), "");
    }
}
