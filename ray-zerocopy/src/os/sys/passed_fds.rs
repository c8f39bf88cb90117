//! File descriptors that the service manager passes to this process (`LISTEN_FDS`).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Takes the file descriptors that the service manager has passed, with their names. Returns none if
/// there is no service manager, or if they have been taken.
///
/// # Errors
/// If the variables are malformed.
pub(crate) fn take() -> io::Result<Vec<(String, OwnedFd)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    let owned = passed.map(|(fd, name)| {
        // SAFETY: `LISTEN_PID` is the id of this process, so the service manager has opened the descriptor
        // for it, and by the protocol only the code that reads `LISTEN_FDS` uses it. This is the only such
        // code of this crate, and it runs once: see `TAKEN`.
        (name, unsafe { OwnedFd::from_raw_fd(fd) })
    });
    Ok(owned.collect())
}
