//! Other processes of the same program, which do not outlive the benchmark.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// This very program, to be started again.
pub fn this_program() -> Command {
    // The file that runs, even if a build has replaced it on disk since.
    Command::new("/proc/self/exe")
}

/// A child that is killed and reaped when dropped, so that an error in the benchmark leaves nothing behind.
#[derive(Debug)]
pub struct Reaped(pub Child);

impl Reaped {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for a child that has been told to end.
    ///
    /// # Errors
    /// If it does not end within ten seconds, or ends with an error.
    pub fn end(self) -> Result<()> {
        self.wait(Duration::from_secs(10))
    }

    /// Waits for a child that has something to do.
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
        // An error means that it has ended, which is what is wanted.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A child that is talked to: lines of JSON go to its standard input, and come from its standard output.
#[derive(Debug)]
pub struct Talking {
    process: Reaped,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Talking {
    /// Starts a program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &mut Command) -> Result<Self> {
        let spawned = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = Reaped(spawned.context("a child process cannot be started")?);
        let orders = process.0.stdin.take().context("the child process has no pipe")?;
        let answers = BufReader::new(process.0.stdout.take().context("the child process has no pipe")?);
        Ok(Self { process, orders, answers })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits for the next thing that it says.
    ///
    /// # Errors
    /// If it says something else, or has ended.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("child process {} said {line:?}", self.pid()))
    }

    /// Says something to it, and waits for the answer.
    ///
    /// # Errors
    /// As [`hear`](Self::hear).
    pub fn ask<T: DeserializeOwned>(&mut self, order: &impl Serialize) -> Result<T> {
        writeln!(self.orders, "{}", serde_json::to_string(order)?)?;
        self.hear()
    }

    /// Hangs up, and waits until it has ended.
    ///
    /// # Errors
    /// If it fails, or does not end.
    pub fn end(self) -> Result<()> {
        drop(self.orders);
        self.process.end()
    }
}

/// The child's side: says something.
///
/// # Errors
/// If nobody listens.
pub fn say(what: &impl Serialize) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(what)?)?;
    Ok(stdout.flush()?)
}

/// The child's side: answers orders until there are no more.
///
/// # Errors
/// The first error of `answer`, or if an order cannot be read.
pub fn serve<O: DeserializeOwned, A: Serialize>(mut answer: impl FnMut(O) -> Result<A>) -> Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        let order = serde_json::from_str(&line).with_context(|| format!("{line:?} is no order"))?;
        say(&answer(order)?)?;
    }
    Ok(())
}

/// One thing for each of many, at the same time, each in a thread of its own. The results have the order of the items.
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
