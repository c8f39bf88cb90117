//! The items of a stream, on their way from the worker to the reader.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use crate::engine::message::Incoming;
use crate::os::sync::{Condvar, Mutex};
use crate::panics;

/// Interval at which a thread that waits for its reader checks whether it still has to.
const CHECK: Duration = Duration::from_millis(100);

/// The items of a stream that have arrived and were not read, and the number of those that may
/// arrive.
///
/// A worker is told a *limit*: the number of items that it may send in all. It is the number of items
/// that were read, and [`window`](Self::new). So a slow reader slows the worker down.
pub(crate) struct Items {
    window: u64,
    state: Mutex<State>,
    /// Whether an item waits for the reader, who may look often.
    has_item: AtomicBool,
    /// Notified when a worker in this process may go on.
    room: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Incoming>,
    /// Number of items that the reader has taken.
    taken: u64,
    /// The limit that the worker was told last.
    told: u64,
    /// Whether any item has arrived.
    has_begun: bool,
    /// Whether the stream has ended: items that arrive later are dropped.
    is_closed: bool,
    /// Whether the worker need not wait for the reader any more, because the engine ends.
    is_unlimited: bool,
    reader: Option<Waker>,
}

impl State {
    fn limit(&self, window: u64) -> u64 {
        if self.is_unlimited { u64::MAX } else { self.taken.saturating_add(window) }
    }
}

/// Result of looking for an item.
pub(crate) enum Next {
    /// An item, and whether the worker should be told that it may send more.
    Item(Incoming, bool),
    /// None has arrived. The waker is called when one does.
    None,
}

impl Items {
    /// Creates a stream of which at most `window` items wait for the reader.
    pub(crate) fn new(window: usize) -> Self {
        let window = u64::try_from(window).unwrap_or(u64::MAX).max(1);
        Self { window, state: Mutex::default(), has_item: AtomicBool::new(false), room: Condvar::default() }
    }

    /// Number of items that may wait for the reader.
    #[cfg(feature = "ray")]
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Returns the limit for a worker that is about to begin.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.state.lock();
        state.told = state.limit(self.window);
        state.told
    }

    /// Returns the limit if it is worth to tell the worker: when half of the window is free, so that
    /// the worker neither waits nor hears of each item.
    pub(crate) fn new_limit(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let limit = state.limit(self.window);
        if limit.saturating_sub(state.told) < self.window.div_ceil(2) {
            return None;
        }
        state.told = limit;
        Some(limit)
    }

    /// Lifts the limit, because the engine ends when the call has ended.
    pub(crate) fn lift(&self) {
        self.state.lock().is_unlimited = true;
        self.room.notify_all();
    }

    /// Appends items. Returns `false` if no reader takes them any more.
    pub(crate) fn push(&self, items: impl IntoIterator<Item = Incoming>) -> bool {
        let reader = {
            let mut state = self.state.lock();
            if state.is_closed {
                return false;
            }
            state.waiting.extend(items);
            if state.waiting.is_empty() {
                return true;
            }
            state.has_begun = true;
            self.has_item.store(true, Ordering::Release);
            state.reader.take()
        };
        wake(reader);
        true
    }

    /// Appends an item when there is room for it. Returns `false` if no reader takes it any more.
    /// `must_wait` is asked now and then: without a reason to wait, the limit is lifted.
    pub(crate) fn push_in_turn(&self, item: Incoming, must_wait: impl Fn() -> bool) -> bool {
        while !self.wait_for_room() {
            // Asked without the lock: it takes one of the engine.
            if !must_wait() {
                self.lift();
            }
        }
        self.push([item])
    }

    /// Waits for room for an item, but not for long. Returns `true` if there is room, or if nothing is to
    /// be waited for any more.
    fn wait_for_room(&self) -> bool {
        let has_room =
            |state: &State| (state.waiting.len() as u64) < self.window || state.is_unlimited || state.is_closed;
        let state = self.state.lock();
        has_room(&state) || has_room(&self.room.wait(state, Some(CHECK)))
    }

    /// Takes the next item, or registers the reader.
    pub(crate) fn next(&self, reader: &Waker) -> Next {
        // Cloning and dropping a waker is user code, which must not run under the lock.
        let reader = reader.clone();
        let mut state = self.state.lock();
        let Some(item) = state.waiting.pop_front() else {
            let before = state.reader.replace(reader);
            drop(state);
            drop(before);
            return Next::None;
        };
        self.has_item.store(!state.waiting.is_empty(), Ordering::Release);
        state.taken += 1;
        let has_room = state.limit(self.window) - state.told >= self.window.div_ceil(2);
        drop(state);
        self.room.notify_one();
        Next::Item(item, has_room)
    }

    /// Returns `true` if an item waits for the reader.
    pub(crate) fn has_item(&self) -> bool {
        self.has_item.load(Ordering::Acquire)
    }

    /// Returns `true` if any item has arrived: the call cannot be repeated then.
    pub(crate) fn has_begun(&self) -> bool {
        self.state.lock().has_begun
    }

    /// Returns `true` if no reader takes items any more.
    #[cfg(feature = "ray")]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Ends the stream. Items that have arrived can still be read.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.room.notify_all();
    }
}

/// Wakes the reader, which runs user code.
fn wake(reader: Option<Waker>) {
    if let Some(reader) = reader {
        panics::caught(move || reader.wake()).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use super::{Items, Next};
    use crate::engine::message::Incoming;

    /// Takes an item. Returns whether the worker should be told.
    fn take(items: &Items) -> Option<bool> {
        match items.next(Waker::noop()) {
            Next::Item(_, tell) => Some(tell),
            Next::None => None,
        }
    }

    #[test]
    fn limit_rises_by_half_windows() {
        let items = Items::new(4);
        assert_eq!(items.begin(), 4);
        for _ in 0..4 {
            assert!(items.push([Incoming::default()]));
        }
        assert_eq!(items.new_limit(), None);
        assert_eq!((take(&items), items.new_limit()), (Some(false), None));
        assert_eq!((take(&items), items.new_limit()), (Some(true), Some(6)));
        assert_eq!((take(&items), items.new_limit()), (Some(false), None));
        items.lift();
        assert_eq!(items.new_limit(), Some(u64::MAX));
        assert_eq!((take(&items), take(&items)), (Some(false), None));
    }

    #[test]
    fn worker_of_this_process_waits_for_its_reader() {
        let items = Arc::new(Items::new(1));
        let pushing = Arc::clone(&items);
        let worker = std::thread::spawn(move || (0..3).all(|_| pushing.push_in_turn(Incoming::default(), || true)));
        for _ in 0..3 {
            while !items.has_item() {
                std::thread::yield_now();
            }
            assert!(items.state.lock().waiting.len() <= 1);
            assert!(take(&items).is_some());
        }
        assert!(worker.join().unwrap());
        assert!(items.push_in_turn(Incoming::default(), || true));
        assert!(items.push_in_turn(Incoming::default(), || false), "the limit is lifted");
        items.close();
        assert!(!items.push([Incoming::default()]) && !items.push_in_turn(Incoming::default(), || true));
        assert_eq!((take(&items).is_some(), take(&items).is_some(), take(&items)), (true, true, None));
    }
}
