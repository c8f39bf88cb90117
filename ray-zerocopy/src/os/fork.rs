//! Computing in a child of `fork`, which does not have the threads of rayon's global pool.
//!
//! burn's CPU kernels and blake3 use rayon's global pool. A child of `fork` inherits the pool's
//! data but none of its threads, so every parallel operation would wait forever. A thread of the
//! child can become a member of a new pool, which then runs everything that the thread computes.
//! [`adopt`] sets this up and is called on every path into a computation.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::os::sys::process_id::process_id;

/// The process that last checked the global pool. The lowest bit is set if the pool has no threads
/// in that process.
static POOL: AtomicU64 = AtomicU64::new(0);

/// Makes this thread able to compute in a child of `fork`.
///
/// [`load`](crate::load()), [`Loaded`](crate::Loaded), graphs and the Python modules call this
/// themselves. An explicit call is needed in a child that was forked from a process that has
/// already computed, if the child uses a pipeline or burn directly: each thread calls it once,
/// before its first operation. The first thread of the child gets a pool of the default size;
/// operations on other threads run on the calling thread only. In other processes this does
/// nothing.
///
/// ```
/// ray_zerocopy::after_fork();
/// ```
pub fn after_fork() {
    adopt();
}

/// Makes this thread a member of a new pool if this process is a child of `fork` without the
/// threads of the global pool.
pub(crate) fn adopt() {
    thread_local! {
        static CHECKED: Cell<u32> = const { Cell::new(0) };
    }
    let pid = process_id();
    if CHECKED.replace(pid) == pid || !pool_is_lost(pid) || rayon::current_thread_index().is_some() {
        // A member of a pool runs the jobs it has queued itself if no other thread takes them.
        return;
    }
    let build = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build();
    // 0 selects rayon's default size. The pools of other threads exist until the process ends, so
    // they get no additional threads.
    let pool = build(if is_first_thread() { 0 } else { 1 }).or_else(|_| build(1));
    // Dropping the pool would end its threads. An error means that this thread already is a member
    // of a pool, which is sufficient.
    std::mem::forget(pool);
}

/// Returns `true` if the global pool was started in a process of which this one is a fork.
fn pool_is_lost(pid: u32) -> bool {
    let known = POOL.load(Ordering::Acquire);
    if known >> 1 == u64::from(pid) {
        return known & 1 == 1;
    }
    let forked = known != 0 || was_forked();
    // The pool can be started only once: if starting it succeeds here, it was not started before
    // the fork.
    let lost = forked && rayon::ThreadPoolBuilder::new().build_global().is_err();
    POOL.store(u64::from(pid) << 1 | u64::from(lost), Ordering::Release);
    lost
}

/// Returns `true` if this process was forked and has not executed a program since. `false` without
/// `/proc`.
fn was_forked() -> bool {
    const PF_FORKNOEXEC: u64 = 0x40;
    super::procfs::flags().is_some_and(|flags| flags & PF_FORKNOEXEC != 0)
}

/// Returns `true` on the one thread that `fork` leaves in the child.
fn is_first_thread() -> bool {
    let own = std::fs::read_link("/proc/thread-self");
    own.is_ok_and(|own| own.file_name().is_some_and(|name| *name == *process_id().to_string()))
}

/// A mutex that does not deadlock in a child of `fork` if another thread held it at the fork, since
/// that thread does not exist in the child.
#[derive(Debug)]
pub struct ForkMutex<T> {
    inner: Mutex<T>,
    /// The process that last used the lock. The two lowest bits hold the lock's status in that
    /// process.
    home: AtomicU64,
}

/// Status values in the lowest bits of [`ForkMutex::home`].
const USABLE: u64 = 0;
const LOST: u64 = 1;
const UNDECIDED: u64 = 2;

/// Error: another thread held the lock when this process was forked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldAtFork;

impl fmt::Display for HeldAtFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "this process was forked while another thread computed with it, so its state is unknown here: load it again in \
             this process, or fork before it is used",
        )
    }
}

impl std::error::Error for HeldAtFork {}

impl<T> ForkMutex<T> {
    /// Creates an unlocked mutex.
    pub fn new(value: T) -> Self {
        Self { inner: Mutex::new(value), home: AtomicU64::new(u64::from(process_id()) << 2 | USABLE) }
    }

    /// Locks the mutex. Poisoning by a panic is ignored.
    ///
    /// # Errors
    /// If a thread of the parent process held the lock at the fork.
    pub fn lock(&self) -> Result<MutexGuard<'_, T>, HeldAtFork> {
        let pid = u64::from(process_id());
        loop {
            let home = self.home.load(Ordering::Acquire);
            match (home >> 2 == pid, home & 3) {
                (true, USABLE) => return Ok(self.inner.lock().unwrap_or_else(PoisonError::into_inner)),
                (true, LOST) => return Err(HeldAtFork),
                // Another thread is checking, which takes as long as one `try_lock`.
                (true, _) => std::thread::yield_now(),
                (false, _) => {
                    let undecided = pid << 2 | UNDECIDED;
                    if self.home.compare_exchange(home, undecided, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        // Threads of this process wait above, so only a thread of another process
                        // can hold the lock.
                        let lost = matches!(self.inner.try_lock(), Err(std::sync::TryLockError::WouldBlock));
                        self.home.store(pid << 2 | if lost { LOST } else { USABLE }, Ordering::Release);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ForkMutex;
    use super::adopt;
    use super::was_forked;

    #[test]
    fn started_process_is_not_a_fork() {
        assert!(!was_forked());
        adopt();
        assert!(rayon::current_thread_index().is_none());
    }

    #[test]
    fn fork_mutex_excludes_other_threads() {
        let lock = ForkMutex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        *lock.lock().unwrap() += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock().unwrap(), 4000);
    }
}
