//! Threads that run closures at given instants: for deadlines, and for work that must not run on
//! the threads of Ray.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::os::per_process::PerProcess;
use crate::os::sync::Mutex;
use crate::panics;

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    static IS_ENGINE_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Returns `true` on a thread of an engine. Code on such a thread must not wait for work that is
/// queued on it.
pub(crate) fn is_own_thread() -> bool {
    IS_ENGINE_THREAD.get()
}

/// Records that this thread is one of an engine.
#[cfg(feature = "ray")]
pub(crate) fn mark_own_thread() {
    IS_ENGINE_THREAD.set(true);
}

/// The timer of this process. Its thread starts at the first use and runs until the process ends.
///
/// # Errors
/// If the thread cannot be started.
pub(crate) fn shared() -> std::io::Result<Arc<TimerThread>> {
    static SHARED: PerProcess<Mutex<Option<Arc<TimerThread>>>> = PerProcess::new();
    let mut shared = SHARED.get().lock();
    match &*shared {
        Some(timer) => Ok(Arc::clone(timer)),
        None => Ok(Arc::clone(shared.insert(Arc::new(TimerThread::start()?)))),
    }
}

/// Runs closures at given instants, on a thread that ends when this is dropped.
pub(crate) struct TimerThread(Mutex<Sender<(Instant, Work)>>);

impl TimerThread {
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = channel::<(Instant, Work)>();
        std::thread::Builder::new().name("ray-zerocopy timer".to_owned()).spawn(move || {
            IS_ENGINE_THREAD.set(true);
            let mut due: BTreeMap<(Instant, u64), Work> = BTreeMap::new();
            let mut number = 0;
            loop {
                let now = Instant::now();
                while let Some(first) = due.first_entry().filter(|first| first.key().0 <= now) {
                    // The closure may run user code, whose panic must not end the thread.
                    panics::caught(first.remove()).ok();
                }
                let wait = due.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()));
                match receiver.recv_timeout(wait.unwrap_or(Duration::from_secs(3600))) {
                    Ok((at, work)) => {
                        number += 1;
                        due.insert((at, number), work);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self(Mutex::new(sender)))
    }

    /// Runs the closure as soon as possible.
    pub(crate) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.run_at(Instant::now(), work);
    }

    /// Runs the closure at the given instant.
    pub(crate) fn run_at(&self, when: Instant, work: impl FnOnce() + Send + 'static) {
        let sender = self.0.lock();
        // The thread lives as long as the sender, so this cannot fail.
        let _ = sender.send((when, Box::new(work)));
    }
}
