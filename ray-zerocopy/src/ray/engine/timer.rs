//! A thread for work that must not run on a thread of Ray's: deadlines, sending again, and answers, which run code of the
//! caller.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::panics;

type Work = Box<dyn FnOnce() + Send>;

thread_local! {
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is an engine's own. Nothing that it has still to do may be waited for there.
pub(super) fn is_own_thread() -> bool {
    KEEPS.get()
}

/// Does work at a time, on a thread of its own that ends with the keeper.
pub(super) struct TimerThread(Mutex<Sender<(Instant, Work)>>);

impl TimerThread {
    /// # Errors
    /// If there is no thread for it.
    pub(super) fn start() -> std::io::Result<Self> {
        let (orders, arrivals) = channel::<(Instant, Work)>();
        std::thread::Builder::new().name("ray-zerocopy keeper".to_owned()).spawn(move || {
            KEEPS.set(true);
            let mut due: BTreeMap<(Instant, u64), Work> = BTreeMap::new();
            let mut number = 0;
            loop {
                let now = Instant::now();
                while let Some(first) = due.first_entry().filter(|first| first.key().0 <= now) {
                    // Code of others may run there, and its panic is not the keeper's.
                    drop(panics::caught(first.remove()));
                }
                let wait = due.first_key_value().map(|((at, _), _)| at.saturating_duration_since(Instant::now()));
                match arrivals.recv_timeout(wait.unwrap_or(Duration::from_secs(3600))) {
                    Ok((at, work)) => {
                        number += 1;
                        due.insert((at, number), work);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self(Mutex::new(orders)))
    }

    /// Has it done now, elsewhere.
    pub(super) fn soon(&self, work: impl FnOnce() + Send + 'static) {
        self.at(Instant::now(), work);
    }

    /// Has it done then.
    pub(super) fn at(&self, when: Instant, work: impl FnOnce() + Send + 'static) {
        let orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The thread lives as long as the keeper does.
        drop(orders.send((when, Box::new(work))));
    }
}
