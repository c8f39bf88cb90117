//! A `Mutex` and a `Condvar` without poisoning, and the clock.
//!
//! The locks of the engines protect plain data that is never left half-written, and user code does
//! not run while they are held. So a panic of a thread that holds one leaves valid data behind, and
//! the next thread goes on with it. User code does run under three other locks: that of a progress
//! callback, whose state belongs to the user, and those that let one recording or one read of a
//! compiled graph run at a time, which protect no data.
//!
//! Code that takes its locks from here can be compiled for the model checker `loom`, which has its
//! own implementation of this module: see `tests/loom`.

pub(crate) use std::sync::MutexGuard;
use std::sync::{self, PoisonError};
use std::time::{Duration, Instant};

/// The time. In the model checker, it passes only where a thread waits for it.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A [`std::sync::Mutex`] whose `lock` ignores poisoning.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T: ?Sized>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a wait on a [`Condvar`] ended because its time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Notified,
    TimedOut,
}

/// A [`std::sync::Condvar`] for [`Mutex`].
#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a notification, and not longer than `timeout` if there is one. May return earlier.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>, timeout: Option<Duration>) -> MutexGuard<'a, T> {
        match timeout {
            Some(timeout) => self.0.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0,
            None => self.0.wait(guard).unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Waits until `condition` is false, and not longer than `timeout`.
    pub(crate) fn wait_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
        condition: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, Waited) {
        let result = self.0.wait_timeout_while(guard, timeout, condition).unwrap_or_else(PoisonError::into_inner);
        let waited = if result.1.timed_out() { Waited::TimedOut } else { Waited::Notified };
        (result.0, waited)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::{Condvar, Mutex, Waited};

    #[test]
    fn lock_works_after_a_panic_of_its_holder() {
        let mutex = Mutex::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut value = mutex.lock();
            *value = 2;
            panic!("while the lock is held");
        }));
        assert!(panicked.is_err());
        assert_eq!(*mutex.lock(), 2);
    }

    #[test]
    fn wait_while_reports_a_timeout() {
        let (mutex, condvar) = (Mutex::new(0), Condvar::default());
        let (guard, waited) = condvar.wait_while(mutex.lock(), Duration::from_millis(1), |value| *value == 0);
        assert_eq!(waited, Waited::TimedOut);
        drop(guard);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                *mutex.lock() = 1;
                condvar.notify_all();
            });
            let (_guard, waited) = condvar.wait_while(mutex.lock(), Duration::from_secs(60), |value| *value == 0);
            assert_eq!(waited, Waited::Notified);
        });
    }
}
