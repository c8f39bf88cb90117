//! The locks of `ray-zerocopy/src/os/sync.rs`, made of loom's, and a clock that passes only where a
//! thread waits for it.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

thread_local! {
    /// All threads of a model run on one thread of the system, one model at a time.
    static CLOCK: Cell<Option<Instant>> = const { Cell::new(None) };
    /// How many waits of a run had a timeout.
    static WAITS: Cell<u32> = const { Cell::new(0) };
}

/// How many waits with a timeout may end before another thread has run. A thread that goes on like
/// that is not stuck, but would make a run endless.
const RACING_WAITS: u32 = 4;

/// Begins a run of a model.
pub(crate) fn reset() {
    CLOCK.set(None);
    WAITS.set(0);
}

/// The time of the model.
pub(crate) fn now() -> Instant {
    CLOCK.get().unwrap_or_else(|| {
        let start = Instant::now();
        CLOCK.set(Some(start));
        start
    })
}

#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, guard: Some(self.0.lock().unwrap()) }
    }
}

/// A guard that knows its mutex, to release and lock it again.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: Option<loom::sync::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().unwrap()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    Notified,
    TimedOut,
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(loom::sync::Condvar);

impl Condvar {
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a notification. With a timeout, waits until that is over instead: other threads
    /// may run meanwhile, or not.
    pub(crate) fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>, timeout: Option<Duration>) -> MutexGuard<'a, T> {
        if let Some(timeout) = timeout {
            let mutex = guard.mutex;
            drop(guard);
            let waits = WAITS.get() + 1;
            WAITS.set(waits);
            if waits > RACING_WAITS {
                loom::thread::yield_now();
            }
            guard = mutex.lock();
            CLOCK.set(Some(now() + timeout));
            return guard;
        }
        let inner = self.0.wait(guard.guard.take().unwrap()).unwrap();
        guard.guard = Some(inner);
        guard
    }

    /// Waits until `condition` is false, however long that takes: no heartbeat may be needed for
    /// progress.
    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _heartbeat: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, Waited) {
        while condition(&mut guard) {
            guard = self.wait(guard, None);
        }
        (guard, Waited::Notified)
    }
}
