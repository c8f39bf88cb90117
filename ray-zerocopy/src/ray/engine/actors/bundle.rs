//! Several small calls that are sent to an actor as one call of Ray.
//!
//! Each of them has its own result, error and cancellation. Two things differ from calls that are sent alone. The
//! results are there when all have run. And if the actor dies, all of them are lost: it is not known which of
//! them have begun, and a call of an actor is never repeated. So a bundle is short.

use std::sync::Arc;

use pyo3::prelude::*;

use super::Shared;
use crate::engine::program::Program;
use crate::error::ray::RayError;
use crate::ray::engine::bundling::{encode, method_of, send_as_one};
use crate::ray::engine::in_flight::InFlightCall;
use crate::ray::engine::inline_wait::UnreadReply;
use crate::ray::engine::sent_bundle::SentBundle;
use crate::ray::engine::{in_python, program_id};
use crate::ray::wire::bundle::divide;
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::Order;

impl Shared {
    /// Sends `first` and the calls in `rest`. Their callers are woken by a thread of the engine: each of them would
    /// have to read the reply at once, as the others wait for it.
    pub(super) fn send_bundle(self: &Arc<Self>, index: usize, first: InFlightCall, rest: Vec<InFlightCall>) {
        let calls: Vec<_> = std::iter::once(first.clone()).chain(rest).collect();
        let Some(program) = calls.iter().find_map(InFlightCall::program) else {
            // All of them are completed.
            self.call_ended(index, &first);
            return calls.iter().for_each(InFlightCall::not_sent);
        };
        let sent = send_as_one(&program_id(&self.target.cluster, &program), &calls);
        calls.iter().for_each(|call| call.assign(index));
        if let Err(error) = self.try_send_bundle(index, &program, &sent, &calls) {
            sent.end(&self.target.cluster, &self.timer);
            self.call_ended(index, &first);
            for call in calls {
                call.not_sent();
                call.fail(error.clone());
            }
        }
    }

    fn try_send_bundle(
        self: &Arc<Self>,
        index: usize,
        program: &Program,
        sent: &Arc<SentBundle>,
        calls: &[InFlightCall],
    ) -> Result<(), RayError> {
        let cluster = &self.target.cluster;
        let (bundle, payload) = encode(sent, calls, Some(index), self.worker(index));
        let method = method_of(calls);
        let (target, arena) = self.program_of(index, program, method)?;
        let message = EncodedMessage::with(&self.request(Order::Bundle { target, bundle }), payload)?;
        let reference = cluster.ask(method, |py| {
            let arguments = message.arguments(py, in_python(py, &arena))?;
            Ok(self.call(py, index)?.bind(py).call1(arguments)?.unbind())
        })?;
        let (shared, sent, calls) = (Arc::clone(self), Arc::clone(sent), calls.to_vec());
        let on_result = Box::new(move |result| {
            sent.end(&shared.target.cluster, &shared.timer);
            let at = calls.first().and_then(|first| shared.call_ended(index, first));
            let results = divide(result, calls.len());
            shared.complete(index, at, calls.into_iter().zip(results));
        });
        UnreadReply::new(cluster, reference, method, &self.delivery_thread, None, on_result).read_by_ray();
        Ok(())
    }
}
