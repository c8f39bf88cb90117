//! Which calls are sent to Ray together.
//!
//! A bundle is a matter of transport: each call in it remains a call of its own. As in a pool of this machine, it
//! has as many calls as a worker should finish in half a millisecond, by the time that their methods take.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::in_flight::InFlightCall;
use super::sent_bundle::SentBundle;
use crate::engine::queue::bundle_size::{BundleRoom, CallTime};
use crate::error::call::Worker;
use crate::ray::wire::bundle::CallBundle;
use crate::ray::wire::frame::Payload;
use crate::ray::wire::protocol::ProgramId;

/// How long the methods take, for the calls that may be sent together.
#[derive(Default)]
pub(super) struct MethodTimes(HashMap<(u64, &'static str), CallTime>);

impl MethodTimes {
    /// Records how long a call has taken.
    pub(super) fn record(&mut self, call: &InFlightCall, took: Duration) {
        self.0.entry((call.program_key(), call.method())).or_default().record(took);
    }

    /// Forgets the methods of a program.
    pub(super) fn forget(&mut self, key: u64) {
        self.0.retain(|(known, _), _| *known != key);
    }

    /// Takes the room of a call in a bundle. Returns `false` if there is too little, or if it is sent alone.
    fn take_room(&self, room: &mut BundleRoom, call: &InFlightCall) -> bool {
        let time = self.0.get(&(call.program_key(), call.method())).copied().unwrap_or_default();
        call.bundled_size().is_some_and(|bytes| room.take(bytes, time))
    }

    /// Returns `true` if a call may be sent with another one like it.
    pub(super) fn may_have_company(&self, call: &InFlightCall) -> bool {
        let mut room = BundleRoom::new(2);
        self.take_room(&mut room, call) && self.take_room(&mut room, call)
    }

    /// Takes the calls at the front of the queue that are sent with `first`. Together they are at most `share`, and
    /// of one program.
    pub(super) fn take_company(
        &self,
        first: &InFlightCall,
        queue: &mut VecDeque<InFlightCall>,
        share: usize,
    ) -> Vec<InFlightCall> {
        let mut room = BundleRoom::new(share);
        let mut calls = Vec::new();
        if !self.take_room(&mut room, first) {
            return calls;
        }
        let mut fits = |call: &InFlightCall| {
            // A call that is completed, because it was cancelled, needs no room.
            !call.is_open() || (call.program_key() == first.program_key() && self.take_room(&mut room, call))
        };
        while let Some(call) = queue.pop_front_if(|call| fits(call)) {
            calls.extend(Some(call).filter(InFlightCall::is_open));
        }
        calls
    }
}

/// Records that calls are sent as one. From here on, a cancellation of one of them reaches the worker.
pub(super) fn send_as_one(program: &ProgramId, calls: &[InFlightCall]) -> Arc<SentBundle> {
    let sent = SentBundle::new(program);
    for (number, call) in calls.iter().enumerate() {
        call.sent_in(&sent, number);
    }
    sent
}

/// The methods of the calls that are not completed, and the arguments.
pub(super) fn encode(
    sent: &SentBundle,
    calls: &[InFlightCall],
    index: Option<usize>,
    worker: Option<Worker>,
) -> (CallBundle, Payload) {
    let handler = |call: &InFlightCall| call.with(|call| call.handler.clone());
    let (mut bundle, payload) =
        CallBundle::new(sent.id().id, calls.iter().map(|call| Some((handler(call)?, call.payload()))));
    let traces: Vec<_> = calls.iter().map(|call| call.trace(index, worker)).collect();
    if traces.iter().any(Option::is_some) {
        bundle.traces = traces;
    }
    (bundle, payload)
}

/// The method of calls, as errors of Ray name it.
pub(super) fn method_of(calls: &[InFlightCall]) -> &'static str {
    let method = calls.first().map(InFlightCall::method);
    let is_common = |method: &&'static str| calls.iter().all(|call| call.method() == *method);
    method.filter(is_common).unwrap_or("several methods")
}
