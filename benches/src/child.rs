//! Child processes that run the same program and do not outlive the benchmark.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns a command that starts this program again.
pub fn this_program() -> Command {
    // The running executable, even if a build has replaced the file since.
    Command::new("/proc/self/exe")
}

/// A child process that is killed and reaped when dropped, so that it does not outlive an error of
/// the benchmark.
#[derive(Debug)]
pub struct Reaped(pub Child);

impl Reaped {
    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for a child whose input has been closed.
    ///
    /// # Errors
    /// If it does not end within ten seconds, or ends with an error.
    pub fn end(self) -> Result<()> {
        self.wait(Duration::from_secs(10))
    }

    /// Waits for a child that still has work to do.
    ///
    /// # Errors
    /// If it does not end in time, or ends with an error.
    pub fn wait(mut self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        let status = loop {
            match self.0.try_wait()? {
                Some(status) => break status,
                None => {
                    ensure!(Instant::now() < until, "child process {} does not end within {patience:?}", self.pid())
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        ensure!(status.success(), "child process {} failed: {status}", self.pid());
        Ok(())
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // Errors mean that the process has already ended.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Requests and responses with a child process, as lines of JSON on its standard input and output.
#[derive(Debug)]
pub struct ChildRpc {
    process: Reaped,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
}

impl ChildRpc {
    /// Starts a program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &mut Command) -> Result<Self> {
        let spawned = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = Reaped(spawned.context("a child process cannot be started")?);
        let requests = process.0.stdin.take().context("the child process has no pipe")?;
        let responses = BufReader::new(process.0.stdout.take().context("the child process has no pipe")?);
        Ok(Self { process, requests, responses })
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// If the message has another type, or the child has ended.
    pub fn recv<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.responses.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("child process {} sent {line:?}", self.pid()))
    }

    /// Sends a request and receives the response.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), or if the request cannot be sent.
    pub fn call<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> Result<T> {
        writeln!(self.requests, "{}", serde_json::to_string(request)?)?;
        self.recv()
    }

    /// Closes the child's input, and waits until it has ended.
    ///
    /// # Errors
    /// If the child fails or does not end.
    pub fn end(self) -> Result<()> {
        drop(self.requests);
        self.process.end()
    }
}

/// Sends a message from the child to its parent.
///
/// # Errors
/// If the parent has closed the pipe.
pub fn send(message: &impl Serialize) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(message)?)?;
    Ok(stdout.flush()?)
}

/// Serves requests in the child until its input is closed.
///
/// # Errors
/// The first error of `respond`, or if a request cannot be read.
pub fn serve<Q: DeserializeOwned, R: Serialize>(mut respond: impl FnMut(Q) -> Result<R>) -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let request = serde_json::from_str(&line).with_context(|| format!("{line:?} is not a request"))?;
        send(&respond(request)?)?;
    }
    Ok(())
}

/// Runs `job` for each item in a thread of its own. The results have the order of the items.
///
/// # Errors
/// The first error.
pub fn together<I: Send, T: Send>(
    items: impl IntoIterator<Item = I>,
    job: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let job = &job;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || job(item))).collect();
        let results =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.collect()
    })
}
