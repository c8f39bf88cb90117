//! Blocking waits that let go of locks which other threads may need for the answer.
//!
//! A thread that waits for a result may hold Python's lock. Whether there is a Python in this process is known to a room above
//! the engine, which the startup code installs here.

use std::sync::OnceLock;

/// Runs the work with every such lock released.
pub(crate) type Release = fn(&mut (dyn FnMut() + Send));

static RELEASE: OnceLock<Release> = OnceLock::new();

/// Installs the function that releases the locks. Later calls have no effect.
#[cfg(feature = "ray")]
pub(crate) fn install(release: Release) {
    RELEASE.get_or_init(|| release);
}

/// Runs `wait`, which blocks until other threads have done something, with the installed locks released.
pub(crate) fn blocking(mut wait: impl FnMut() + Send) {
    match RELEASE.get() {
        Some(release) => release(&mut wait),
        None => wait(),
    }
}
