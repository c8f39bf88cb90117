//! The calls of an engine that have no result yet, to find those that are cancelled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::in_flight::InFlightCall;
use crate::engine::call::Call;
use crate::engine::timer::TimerThread;
use crate::error::call::CallError;
use crate::os::sync::Mutex;
use crate::ray::api::cluster::Cluster;

/// The calls that have no result yet, by number.
#[derive(Default)]
pub(super) struct OpenCalls {
    last: AtomicU64,
    calls: Arc<Mutex<HashMap<u64, InFlightCall>>>,
}

impl OpenCalls {
    /// Takes in a call. Calls `release` when it has its result, and `on_deadline` at its deadline.
    pub(super) fn enter(
        &self,
        call: Call,
        timer: &TimerThread,
        release: impl FnOnce() + Send + 'static,
        on_deadline: impl FnOnce(&InFlightCall) + Send + 'static,
    ) -> InFlightCall {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let calls = Arc::clone(&self.calls);
        let flight = InFlightCall::new(call, number, move || {
            let removed = calls.lock().remove(&number);
            drop(removed);
            release();
        });
        self.calls.lock().insert(number, flight.clone());
        if let Some((until, _)) = flight.deadline() {
            let expired = flight.clone();
            timer.run_at(until, move || on_deadline(&expired));
        }
        flight
    }

    /// Completes the calls for which no caller waits any more, and cancels them in Ray. Calls
    /// `end_worker` for those that have no result after their grace period.
    pub(super) fn cancel(
        &self,
        cluster: &Cluster,
        timer: &TimerThread,
        end_worker: impl Fn(&InFlightCall) + Clone + Send + 'static,
    ) {
        for (call, grace) in self.complete_cancelled() {
            call.cancel(cluster, false);
            let Some(until) = grace.and_then(|grace| Instant::now().checked_add(grace)) else { continue };
            let end_worker = end_worker.clone();
            timer.run_at(until, move || {
                if !call.has_result() {
                    end_worker(&call);
                }
            });
        }
    }

    /// Completes the calls for which no caller waits any more. Returns them, with their grace
    /// periods.
    fn complete_cancelled(&self) -> Vec<(InFlightCall, Option<Duration>)> {
        let cancelled: Vec<_> = {
            let calls = self.calls.lock();
            let grace = |call: &InFlightCall| call.with(|call| call.is_cancelled().then(|| call.grace()))?;
            calls.values().filter_map(|call| Some((call.clone(), grace(call)?))).collect()
        };
        for (call, _) in &cancelled {
            call.answer(Err(CallError::Cancelled { method: call.method().to_owned() }));
        }
        cancelled
    }
}
