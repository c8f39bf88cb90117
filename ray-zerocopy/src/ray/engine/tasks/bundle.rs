//! Several small calls as one task.
//!
//! A call is submitted by its caller at once as long as the cluster can run it at once: Ray starts workers, and a
//! cluster machines, for the tasks that it sees. Calls beyond that are left to the submitter, a thread that takes
//! those that have accumulated while it has submitted the ones before.
//!
//! If the worker dies, each call of its bundle is sent again alone, with one attempt fewer.

use std::sync::Arc;

use pyo3::prelude::*;

use super::Shared;
use crate::error::ray::RayError;
use crate::ray::engine::bundling::{encode, method_of, send_as_one};
use crate::ray::engine::in_flight::{Completion, InFlightCall, RayResult};
use crate::ray::engine::inline_wait::UnreadReply;
use crate::ray::engine::{in_python, program_id};
use crate::ray::wire::bundle::divide;
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Order, Reply};

impl Shared {
    /// Leaves a call to the submitter if the cluster is busy, and the call may be sent with others. Returns `false`
    /// if its caller has to submit it.
    pub(super) fn leave_to_submitter(self: &Arc<Self>, call: &InFlightCall) -> bool {
        let open = {
            let state = self.state.lock();
            // A call that has no other attempt must not be lost with a bundle.
            if state.open < 2 || call.attempts_left() < 2 || !state.times.may_have_company(call) {
                return false;
            }
            state.open
        };
        if open <= self.concurrency() {
            return false;
        }
        let mut state = self.state.lock();
        state.waiting.push_back(call.clone());
        if !std::mem::replace(&mut state.is_submitting, true) {
            let shared = Arc::clone(self);
            self.submitter.spawn(move || shared.submit_waiting());
        }
        true
    }

    /// Submits the calls that wait, until there are none.
    fn submit_waiting(self: &Arc<Self>) {
        loop {
            let (first, mut calls) = {
                let mut state = self.state.lock();
                let state = &mut *state;
                let Some(first) = state.waiting.pop_front() else {
                    state.is_submitting = false;
                    return;
                };
                let calls = state.times.take_company(&first, &mut state.waiting, usize::MAX);
                (first, calls)
            };
            if calls.is_empty() {
                self.send_alone(&first);
            } else {
                calls.insert(0, first);
                self.send_bundle(calls, false);
            }
        }
    }

    /// Sends a call whose caller cannot read the reply.
    fn send_alone(self: &Arc<Self>, call: &InFlightCall) {
        if let Some(unread) = self.send(call, false) {
            unread.read_by_ray();
        }
    }

    /// Submits calls of one program as one task.
    fn send_bundle(self: &Arc<Self>, calls: Vec<InFlightCall>, with_arena: bool) {
        let Some(program) = calls.iter().find_map(|call| call.with(|call| Arc::clone(&call.program))) else {
            // All of them are completed.
            return;
        };
        let sent = send_as_one(&program_id(&self.target.cluster, &program), &calls);
        let send = || -> Result<(), RayError> {
            let cluster = &self.target.cluster;
            let method = method_of(&calls);
            let (bundle, payload) = encode(&sent, &calls, None, None);
            let (target, arena) = self.program_of(&program, with_arena, method)?;
            let message = EncodedMessage::with(&self.request(Order::Bundle { target, bundle }), payload)?;
            let reference = cluster.ask(method, |py| {
                let function = self.function(py, method, 1, None)?;
                Ok(function.call1(message.arguments(py, in_python(py, &arena))?)?.unbind())
            })?;
            let (shared, sent, calls) = (Arc::clone(self), Arc::clone(&sent), calls.clone());
            let on_result = Box::new(move |result| {
                sent.end(&shared.target.cluster, &shared.timer);
                shared.on_bundle_result(calls, result);
            });
            UnreadReply::new(cluster, reference, method, &self.delivery_thread, None, on_result).read_by_ray();
            Ok(())
        };
        if let Err(error) = send() {
            sent.end(&self.target.cluster, &self.timer);
            for call in calls {
                call.fail(error.clone());
            }
        }
    }

    fn on_bundle_result(self: &Arc<Self>, calls: Vec<InFlightCall>, result: RayResult) {
        if let Err(RayError::WorkerDied { .. }) = &result {
            // Ray may hold this thread up.
            let shared = Arc::clone(self);
            return self.submitter.spawn(move || {
                for call in &calls {
                    call.lost_an_attempt();
                    shared.send_alone(call);
                }
            });
        }
        let mut missing = Vec::new();
        let results = divide(result, calls.len());
        for (call, result) in calls.into_iter().zip(results) {
            if let Ok((Reply { took: Some(took), .. }, _)) = &result {
                self.state.lock().times.record(&call, *took);
            }
            if let Completion::Missing = call.complete(result, &self.registry, None) {
                missing.push(call);
            }
        }
        if !missing.is_empty() {
            let shared = Arc::clone(self);
            self.submitter.spawn(move || shared.send_bundle(missing, true));
        }
    }
}
