//! Deadlines: one thread that sleeps until the next of them.
//!
//! A call that waits is answered here. One that runs is its driver's: the keeper hangs up, and the driver sees that.

use crate::error::call::CallPhase;
use std::sync::PoisonError;
use std::time::Instant;

use super::dispatch::{Dispatcher, late};
use super::lock;

/// Runs until the drivers have ended.
pub(super) fn keep(shared: &Dispatcher) {
    let mut state = lock(&shared.state);
    while !state.over() {
        let now = Instant::now();
        let (waiting, running) = (state.late_calls(now), state.late_links(now));
        if !(waiting.is_empty() && running.is_empty()) {
            drop(state);
            shared.space.notify_all();
            running.iter().for_each(|link| link.cut_off_if_late());
            waiting.into_iter().for_each(|call| late(call, CallPhase::Queued));
            state = lock(&shared.state);
            continue;
        }
        state.keeper = state.next_deadline();
        state = match state.keeper {
            Some(until) => {
                let pause = until.saturating_duration_since(now);
                shared.keeper.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0
            }
            None => shared.keeper.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.keeper = None;
    }
}
