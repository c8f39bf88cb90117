//! How far a long run is, on standard error, where it is in nobody's way.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// From here on people want to know.
const LONG: Duration = Duration::from_secs(2);

/// A bar that appears when a run takes long. It draws when it is told of a step, and never by itself: a thread that draws would be measured too.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    /// A bar of so many steps.
    pub fn new(steps: usize) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} (about {eta} more)") {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now() }
    }

    /// The next step begins: `what` it is.
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
