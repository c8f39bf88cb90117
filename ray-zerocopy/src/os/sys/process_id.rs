//! The id of this process, without a system call.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The id, or 0 if it is not known in this process.
static ID: AtomicU32 = AtomicU32::new(0);

/// Returns the id of this process. It is read once for each process: a handler forgets it in a child
/// of `fork`.
pub(crate) fn process_id() -> u32 {
    let known = ID.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    static HANDLER: OnceLock<bool> = OnceLock::new();
    let has_handler = HANDLER.get_or_init(|| {
        // SAFETY: the handler is a function that lives as long as the program or the library with
        // this code, and only stores a number.
        unsafe { libc::pthread_atfork(None, None, Some(forget)) == 0 }
    });
    let id = std::process::id();
    // Without a handler, a fork would have the id of its parent.
    if *has_handler {
        ID.store(id, Ordering::Relaxed);
    }
    id
}

/// Runs in the child of a fork.
unsafe extern "C" fn forget() {
    ID.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::process_id;

    #[test]
    #[cfg_attr(miri, ignore = "forks")]
    fn id_is_that_of_the_fork() {
        let parent = process_id();
        assert_eq!((process_id(), parent), (parent, std::process::id()));
        // SAFETY: the child calls nothing but functions that read a number, and exits.
        match unsafe { libc::fork() } {
            0 => {
                let right = process_id() == std::process::id() && process_id() != parent;
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(if right { 0 } else { 1 }) }
            }
            child => {
                let mut status = 0;
                // SAFETY: `status` is a valid place for the status.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        }
    }
}
