//! Other processes of the same program, which do not outlive the benchmark.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

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
