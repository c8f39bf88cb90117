//! The id of this process, without a system call, and the number of its forks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The id, or 0 if it is not known in this process.
static ID: AtomicU32 = AtomicU32::new(0);
/// The forks of this process that have begun, and those that have ended.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Returns the id of this process. It is read once for each process: a handler forgets it in a child
/// of `fork`.
pub(crate) fn process_id() -> u32 {
    let known = ID.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let has_handlers = has_handlers();
    let id = std::process::id();
    // Without a handler, a fork would have the id of its parent.
    if has_handlers {
        ID.store(id, Ordering::Relaxed);
    }
    id
}

/// Returns the number of forks of this process so far, or `None` if one is going on, or forks are not
/// counted. What exists when this returns a number, and no longer when it returns the same number again, is
/// in no fork.
///
/// Programs that a process starts with `posix_spawn` or `vfork` do not count: they have no copy of its
/// memory.
pub(crate) fn forks() -> Option<u64> {
    if !has_handlers() {
        return None;
    }
    // In this order: if they are equal, no fork was going on when the first one was read.
    let ended = ENDED.load(Ordering::SeqCst);
    let begun = BEGUN.load(Ordering::SeqCst);
    (begun == ended).then_some(begun)
}

/// Installs the handlers of `fork`. Returns `false` if they cannot be installed.
fn has_handlers() -> bool {
    static HANDLERS: OnceLock<bool> = OnceLock::new();
    *HANDLERS.get_or_init(|| {
        // SAFETY: the handlers are functions that live as long as the program or the library with
        // this code, and only store numbers.
        unsafe { libc::pthread_atfork(Some(begin), Some(end), Some(forget)) == 0 }
    })
}

/// Runs before a fork.
unsafe extern "C" fn begin() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

/// Runs in the parent after a fork, even if the fork has failed.
unsafe extern "C" fn end() {
    ENDED.fetch_add(1, Ordering::SeqCst);
}

/// Runs in the child of a fork.
unsafe extern "C" fn forget() {
    ID.store(0, Ordering::Relaxed);
    ENDED.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
}

/// Held by tests that must not see a fork, and, for writing, by those that fork.
#[cfg(test)]
pub(crate) static NO_FORKS: std::sync::RwLock<()> = std::sync::RwLock::new(());

#[cfg(test)]
mod tests {
    use super::{NO_FORKS, forks, process_id};

    #[test]
    #[cfg_attr(miri, ignore = "forks")]
    fn id_is_that_of_the_fork() {
        let _forks = NO_FORKS.write();
        let (parent, before) = (process_id(), forks().unwrap());
        assert_eq!((process_id(), parent), (parent, std::process::id()));
        // SAFETY: the child calls nothing but functions that read a number, and exits.
        match unsafe { libc::fork() } {
            0 => {
                let right = process_id() == std::process::id() && process_id() != parent && forks().is_some();
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(if right { 0 } else { 1 }) }
            }
            child => {
                let mut status = 0;
                // SAFETY: `status` is a valid place for the status.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
                assert_eq!(forks(), Some(before + 1));
            }
        }
    }
}
