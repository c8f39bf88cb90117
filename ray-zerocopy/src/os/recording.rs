//! Keeps recordings of kernels apart from what must not happen meanwhile: CUDA refuses memory and waits to all threads of a
//! process while one of them records.

use std::cell::Cell;
#[cfg(feature = "gpu")]
use std::sync::PoisonError;
use std::sync::RwLock;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use std::sync::TryLockError;

static LOCK: RwLock<()> = RwLock::new(());

thread_local! {
    /// Whether this thread has the lock, in either way.
    static HAS_LOCK: Cell<bool> = const { Cell::new(false) };
}

fn with_mark<T>(work: impl FnOnce() -> T) -> T {
    /// Also resets it if `work` panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            HAS_LOCK.set(false);
        }
    }
    HAS_LOCK.set(true);
    let _reset = Reset;
    work()
}

/// Records. Returns `None`, without a wait, if another thread does what must not happen meanwhile: it may wait for this one.
#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub(crate) fn try_record<T>(work: impl FnOnce() -> T) -> Option<T> {
    let _alone = match LOCK.try_write() {
        Ok(alone) => alone,
        Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    Some(with_mark(work))
}

/// Does what must not happen during a recording: waits for its end. A thread that records does not wait for itself.
#[cfg(feature = "gpu")]
pub(crate) fn apart<T>(work: impl FnOnce() -> T) -> T {
    if HAS_LOCK.get() {
        return work();
    }
    let _others = LOCK.read().unwrap_or_else(PoisonError::into_inner);
    with_mark(work)
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::{apart, try_record};

    #[test]
    fn recordings_and_loads_exclude_each_other() {
        assert_eq!(apart(|| apart(|| try_record(|| ()))), None);
        assert_eq!(try_record(|| apart(|| 7)), Some(7));
        let (begun, wait) = std::sync::mpsc::channel();
        let recording = std::thread::spawn(move || {
            try_record(|| {
                begun.send(()).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(50));
                std::time::Instant::now()
            })
        });
        wait.recv().unwrap();
        let after = apart(std::time::Instant::now);
        assert!(recording.join().unwrap().unwrap() <= after);
    }
}
