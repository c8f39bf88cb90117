//! Cancels a call, wherever it is.

use std::sync::Weak;

use crate::engine::Engine;
use crate::engine::call::batch::batcher::Batcher;
use crate::engine::call::waiter::Waiter;

/// Cancels a call.
pub(super) struct Canceller {
    /// The call has its caller: if it is dropped without an answer, the caller finds out.
    pub(super) waiter: Weak<Waiter>,
    pub(super) queue: Queue,
}

/// The queue that a call has entered.
pub(super) enum Queue {
    Engine(Weak<dyn Engine>),
    Batcher(Weak<Batcher>),
}

impl Canceller {
    pub(super) fn cancel(&self) {
        let Some(waiter) = self.waiter.upgrade().filter(|waiter| !waiter.is_answered()) else { return };
        waiter.cancel();
        // A queue that is gone has no calls.
        match &self.queue {
            Queue::Engine(engine) => {
                if let Some(engine) = engine.upgrade() {
                    engine.cancel();
                }
            }
            Queue::Batcher(batcher) => {
                if let Some(batcher) = batcher.upgrade() {
                    batcher.cancel(&waiter);
                }
            }
        }
    }
}
