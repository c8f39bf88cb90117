//! Progress bars on standard error, if it is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ray_zerocopy::arena::Progress;

use crate::output::one_line;

/// A progress bar, which is cleared when the work is done.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new(what: &str) -> Self {
        // indicatif does not draw if standard error is not a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = "{msg} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(one_line(what));
        Self(bar)
    }

    /// A bar that counts steps.
    pub(crate) fn of_steps(what: &str) -> Self {
        let bar = Self::new(what);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos} of {len}, {eta} left") {
            bar.0.set_style(style.progress_chars("=> "));
        }
        bar
    }

    pub(crate) fn show_step(&self, done: usize, all: usize) {
        self.0.set_length(all as u64);
        self.0.set_position(done as u64);
    }

    pub(crate) fn show(&self, progress: Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.done);
    }

    pub(crate) fn handle(&self) -> Self {
        Self(self.0.clone())
    }

    pub(crate) fn done(&self) {
        self.0.finish_and_clear();
    }
}
