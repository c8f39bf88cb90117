//! The owner's side of a bundle that a worker runs.

use std::io;
use std::time::{Duration, Instant};

use super::bundle::Failure;
use super::conn_state::ConnState;
use super::protocol::Request;
use super::worker_conn::{Collected, Shared, WorkerConn};
use crate::engine::call::{Call, CallResult};
use crate::engine::frame::Packet;
use crate::engine::message::Incoming;
use crate::engine::queue::bundle::Bundle;
use crate::engine::queue::job::QueuedCall;
use crate::os::sync::now;

/// Age of a bundle from which on the calls that have not begun are taken back: ten times what it should
/// take.
const MAX_AGE: Duration = Duration::from_millis(5);

/// What the supervisor finds when it looks at a bundle.
#[derive(Default)]
pub(super) struct Look {
    pub(super) collected: Collected,
    /// Calls that were taken back.
    pub(super) withdrawn: Vec<Call>,
    /// The next deadline of the calls that are left.
    pub(super) deadline: Option<Instant>,
    /// The call that the worker runs: its number, from 0.
    pub(super) running: Option<usize>,
    /// Whether there is a bundle.
    pub(super) has_bundle: bool,
}

/// Encodes the packet of a bundle.
pub(super) fn bundle_packet(serial: u64, bundle: &Bundle<Call>, worker: usize) -> io::Result<Packet> {
    let mut handlers = Vec::new();
    let mut calls = Vec::with_capacity(bundle.calls().len());
    let mut segments: Vec<&[u8]> = Vec::with_capacity(bundle.calls().len());
    let mut key = 0;
    for call in bundle.calls() {
        key = call.program.key;
        let handler = handlers.iter().rposition(|handler| *handler == call.handler).unwrap_or_else(|| {
            handlers.push(call.handler.clone());
            handlers.len() - 1
        });
        calls.push((handler, call.args.segments.len()));
        segments.extend(call.args.segments.iter().map(|segment| &segment[..]));
    }
    let is_traced = bundle.calls().any(Call::is_traced);
    let traces = bundle.calls().filter(|_| is_traced).map(|call| call.context(Some(worker))).collect();
    Packet::of(&(serial, Request::Bundle { key, handlers, calls, traces }), &segments)
}

impl WorkerConn {
    /// Updates the bundle in flight, if there is one, with what the worker has begun and finished.
    pub(super) fn update_bundle(&self, conn: &mut ConnState<Call>) {
        if let (Some(bundle), Some(area)) = (conn.bundle(), self.connection.shared()) {
            area.update(bundle);
        }
    }

    /// Makes the worker begin no further call of a bundle if the deadline of the one that it runs has
    /// passed, so that no other one runs when the worker is ended.
    pub(super) fn stop_expired_bundle(&self, conn: &mut ConnState<Call>) {
        self.update_bundle(conn);
        let is_expired = conn.bundle().and_then(|bundle| bundle.running()).is_some_and(|call| call.is_expired(now()));
        if is_expired && let Some(area) = self.connection.shared() {
            area.withdraw_calls();
            self.update_bundle(conn);
        }
    }

    /// Returns `true` if the worker runs a bundle.
    pub(super) fn runs_bundle(&self) -> bool {
        self.state.lock().conn.bundle().is_some()
    }

    /// Waits for a packet or EOF, for at most `time`. Returns `true` if there is one.
    pub(super) fn is_readable_within(&self, time: Duration) -> bool {
        self.connection.is_readable_within(time)
    }

    /// Takes the calls of the bundle whose answers are in the shared memory.
    pub(super) fn collect(&self) -> Collected {
        self.collect_answers(&mut self.state.lock())
    }

    pub(super) fn collect_answers(&self, state: &mut Shared) -> Collected {
        let mut collected = Collected::default();
        let Some(area) = self.connection.shared() else { return collected };
        self.update_bundle(&mut state.conn);
        while state.conn.bundle().is_some_and(|bundle| bundle.unread() > 0) {
            let mut at = state.next_answer;
            match area.read_answer(&mut at, state.conn.next_answer()) {
                Ok(Some((failure, payload))) => {
                    let Some(call) = state.conn.take_answered() else { break };
                    let result = self.result(&call, failure, payload);
                    collected.answered.push((call, result));
                }
                // Another packet follows, which `take_bundled` handles.
                Ok(None) => break,
                Err(error) => {
                    collected.broken = Some(error);
                    break;
                }
            }
            state.next_answer = at;
        }
        collected
    }

    /// Takes the call of the bundle whose answer is sent as a packet, and those before it. Returns `None` in
    /// its place if the next answer is not sent as one, or is not that to call `serial`, if that is known.
    pub(super) fn take_by_packet(&self, serial: Option<u64>) -> (Collected, Option<Call>) {
        let mut state = self.state.lock();
        let collected = self.collect_answers(&mut state);
        let (next, mut at) = (state.conn.next_answer(), state.next_answer);
        let is_finished = state.conn.bundle().is_some_and(|bundle| bundle.unread() > 0);
        let answer = self.connection.shared().map(|area| area.read_answer(&mut at, next));
        if !is_finished || !matches!(answer, Some(Ok(None))) || serial.is_some_and(|serial| serial != next) {
            return (collected, None);
        }
        state.next_answer = at;
        let call = state.conn.take_answered();
        (collected, call)
    }

    /// Looks at the bundle in flight: collects answers, and takes back the calls that wait
    /// - behind one that was running at the last look, too,
    /// - behind others for much longer than expected,
    /// - for a worker that does not begin, unless `is_patient`,
    /// - and all of them if the deadline of one has passed.
    pub(super) fn look_at_bundle(&self, before: Option<Option<usize>>, is_patient: bool, now: Instant) -> Look {
        let mut state = self.state.lock();
        let collected = self.collect_answers(&mut state);
        let age = state.conn.bundle_age(now).unwrap_or_default();
        let Some(bundle) = state.conn.bundle() else { return Look { collected, ..Look::default() } };
        let running = bundle.running_number();
        let is_slow = match running {
            Some(_) => before == Some(running) || age > MAX_AGE,
            None => before == Some(None) && !is_patient && !bundle.has_begun(),
        };
        let withdrawn = if is_slow || bundle.unbegun().any(|call| call.is_expired(now)) {
            self.withdraw(bundle)
        } else {
            Vec::new()
        };
        let deadline = bundle.calls().filter_map(QueuedCall::deadline).min();
        Look { collected, withdrawn, deadline, running, has_bundle: true }
    }

    /// Takes back the calls that have not begun, if one of them has been cancelled.
    pub(super) fn withdraw_cancelled(&self) -> Vec<Call> {
        let mut state = self.state.lock();
        self.update_bundle(&mut state.conn);
        match state.conn.bundle() {
            Some(bundle) if bundle.unbegun().any(Call::is_cancelled) => self.withdraw(bundle),
            _ => Vec::new(),
        }
    }

    /// Takes back the calls that have not begun. Also returns whether a call has begun.
    pub(super) fn withdraw_all(&self) -> (Vec<Call>, bool) {
        let mut state = self.state.lock();
        let Some(bundle) = state.conn.bundle() else { return Default::default() };
        let withdrawn = self.withdraw(bundle);
        (withdrawn, bundle.has_begun())
    }

    fn withdraw(&self, bundle: &mut Bundle<Call>) -> Vec<Call> {
        let Some(area) = self.connection.shared() else { return Vec::new() };
        area.withdraw_calls();
        area.update(bundle);
        bundle.take_unbegun()
    }

    /// Takes the bundle, because it is over. Returns its answers, and the calls that were not begun.
    ///
    /// # Errors
    /// If a call was begun and not answered. The bundle stays in flight.
    pub(super) fn end_bundle(&self) -> (Collected, Result<Vec<Call>, String>) {
        let mut state = self.state.lock();
        let collected = self.collect_answers(&mut state);
        if let Some(error) = &collected.broken {
            let error = error.to_string();
            return (collected, Err(error));
        }
        let Some(bundle) = state.conn.bundle() else { return (collected, Ok(Vec::new())) };
        let left = self.withdraw(bundle);
        if bundle.is_empty() {
            drop(state.conn.take());
            return (collected, Ok(left));
        }
        // The answers of these calls are missing, so the others are still in flight too.
        let error = format!("{} calls of a bundle have no answer", bundle.calls().len());
        bundle.give_back(left);
        (collected, Err(error))
    }

    /// The result of a call, from its answer.
    pub(super) fn result(&self, call: &Call, failure: Failure, payload: Incoming) -> CallResult {
        match failure {
            Some(failure) => Err(failure.of(call.method, self.worker)),
            None => Ok(payload),
        }
    }
}
