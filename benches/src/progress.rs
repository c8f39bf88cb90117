//! Progress bar of a long run, on standard error.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Runs longer than this show a progress bar.
const LONG: Duration = Duration::from_secs(2);

/// A progress bar that appears when a run takes long. It is drawn only at steps, not by a thread,
/// which would disturb the measurement.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    /// Creates a bar with the given number of steps.
    pub fn new(steps: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (about {eta} more)") {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now() }
    }

    /// Starts the next step.
    pub fn step(&self, what: impl Into<String>) {
        if self.bar.is_hidden() && self.begun.elapsed() > LONG {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_message(what.into());
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
