//! Blocking waits that release locks which other threads may need to complete the result.
//!
//! A thread that waits for a result may hold Python's global interpreter lock. Only higher-level
//! modules know whether this process has a Python; the startup code installs their function here.

use std::sync::OnceLock;

/// A function that runs the given closure with all such locks released.
pub(crate) type Release = fn(&mut (dyn FnMut() + Send));

static RELEASE: OnceLock<Release> = OnceLock::new();

/// Installs the function that releases the locks. Later calls have no effect.
#[cfg(feature = "ray")]
pub(crate) fn install(release: Release) {
    RELEASE.get_or_init(|| release);
}

/// Runs `wait`, which blocks until other threads have made progress, with the installed locks
/// released.
pub(crate) fn blocking(mut wait: impl FnMut() + Send) {
    match RELEASE.get() {
        Some(release) => release(&mut wait),
        None => wait(),
    }
}
