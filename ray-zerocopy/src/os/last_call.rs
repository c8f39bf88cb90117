//! A worker process that ends after its current call, since it cannot compute any more.
//!
//! Its owner starts another one.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_REQUESTED: AtomicBool = AtomicBool::new(false);

/// Ends this process after the call that it runs, if it is a worker process.
pub(crate) fn request() {
    IS_REQUESTED.store(true, Ordering::Relaxed);
}

/// Whether this process is to end.
pub(crate) fn is_requested() -> bool {
    IS_REQUESTED.load(Ordering::Relaxed)
}
