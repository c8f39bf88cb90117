//! Sends calls to actors, and completes them with what Ray returns.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::choice::Assignment;
use super::{Shared, has_shut_down};
use crate::engine::call::items::Items;
use crate::error::call::{CallError, Worker};
use crate::error::ray::RayError;
use crate::ray::engine::in_flight::{Completion, InFlightCall, RayResult};
use crate::ray::engine::inline_wait::UnreadReply;
use crate::ray::engine::{id_and_load, streams};
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Answer, Order, Reply, Request};

impl Shared {
    pub(super) fn request(&self, order: Order) -> Request {
        Request {
            binary: self.target.cluster.0.binary,
            threads: self.target.options.threads(),
            own: !self.target.options.has_compiled_graph() && !self.has_streams,
            whole: false,
            order,
        }
    }

    /// The remote method `call` of an actor.
    pub(super) fn call(&self, py: Python<'_>, index: usize) -> PyResult<Py<PyAny>> {
        let call = self.state.lock().slots.get(index).map(|slot| slot.call.clone_ref(py));
        call.ok_or_else(has_shut_down)
    }

    /// The remote method `call_stream` of an actor.
    fn call_stream(&self, py: Python<'_>, index: usize, items: &Items) -> PyResult<Py<PyAny>> {
        let handle = self.state.lock().slots.get(index).map(|slot| slot.handle.clone_ref(py));
        let handle = handle.ok_or_else(has_shut_down)?;
        let options = PyDict::new(py);
        streams::options(&options, items)?;
        let method = handle.bind(py).getattr("call_stream")?.call_method("options", (), Some(&options))?;
        Ok(method.getattr("remote")?.unbind())
    }

    /// Assigns queued calls to actors that have capacity. Calls for one actor are submitted to Ray
    /// in the order in which they were made.
    ///
    /// Returns the unread reply of `caller`'s call, if it was among them.
    pub(super) fn dispatch(self: &Arc<Self>, caller: Option<&InFlightCall>) -> Option<Arc<UnreadReply>> {
        let mut own = None;
        let bundles = !self.target.options.has_compiled_graph();
        loop {
            let mut state = self.state.lock();
            let Some(assignment) = state.next_assignment(bundles) else { return own };
            let Assignment { index, first, rest, is_pinned } = assignment;
            if rest.is_empty() && !first.is_open() {
                continue;
            }
            state.slots[index].call_assigned(&first);
            state.slots[index].is_submitting |= is_pinned;
            drop(state);
            let sent = if rest.is_empty() {
                self.send(index, &first)
            } else {
                self.send_bundle(index, first.clone(), rest);
                None
            };
            if is_pinned && let Some(slot) = self.state.lock().slots.get_mut(index) {
                // The next iteration submits what other threads have left.
                slot.is_submitting = false;
            }
            match sent {
                Some(unread) if caller.is_some_and(|caller| caller.is(&first)) => own = Some(unread),
                Some(unread) => unread.read_by_ray(),
                None => {}
            }
        }
    }

    /// Like [`dispatch`](Self::dispatch), without a caller that could read a reply.
    pub(super) fn dispatch_queued(self: &Arc<Self>) {
        // Without a caller, there is no unread reply.
        let _ = self.dispatch(None);
    }

    fn send(self: &Arc<Self>, index: usize, flight: &InFlightCall) -> Option<Arc<UnreadReply>> {
        flight.assign(index);
        self.try_send(index, flight).unwrap_or_else(|error| {
            flight.not_sent();
            self.call_ended(index, flight);
            flight.fail(error);
            None
        })
    }

    /// Records that an actor does not have a call any more. Returns the actor's process.
    pub(super) fn call_ended(&self, index: usize, flight: &InFlightCall) -> Option<Worker> {
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(index)?;
        slot.call_ended(flight);
        slot.worker
    }

    fn try_send(self: &Arc<Self>, index: usize, flight: &InFlightCall) -> Result<Option<Arc<UnreadReply>>, RayError> {
        let cluster = &self.target.cluster;
        let (program, _) = id_and_load(cluster, &self.program);
        let Some(handler) = flight.with(|call| call.handler.clone()) else {
            flight.not_sent();
            self.call_ended(index, flight);
            return Ok(None);
        };
        let order = Order::Call { program, handler, load: None, live: Vec::new() };
        let direct = self.state.lock().slots.get(index).and_then(|slot| slot.direct.clone());
        let direct = direct.filter(|_| flight.payload().is_small() && flight.items().is_none());
        let request = Request { whole: direct.is_some(), ..self.request(order) };
        let message = EncodedMessage::with(&request, flight.payload().clone())?;
        let reference = match &direct {
            Some(direct) => direct.send(message, flight.method())?,
            None => cluster.ask(flight.method(), |py| {
                let call = match flight.items() {
                    Some(items) => self.call_stream(py, index, items)?,
                    None => self.call(py, index)?,
                };
                let reference = call.bind(py).call1(message.arguments(py, None)?)?;
                flight.sent(reference.clone().unbind());
                Ok(reference.unbind())
            })?,
        };
        let (shared, completed) = (Arc::clone(self), flight.clone());
        let on_result = Box::new(move |result| {
            let at = shared.call_ended(index, &completed);
            shared.complete(index, at, std::iter::once((completed, result)));
        });
        if let Some(items) = flight.items() {
            let shared = Arc::clone(self);
            let is_open = move || !shared.state.lock().closed;
            streams::read_on_thread(cluster, reference, flight, items, is_open, on_result)?;
            return Ok(None);
        }
        Ok(Some(UnreadReply::new(cluster, reference, flight.method(), &self.delivery_thread, direct, on_result)))
    }

    /// Completes the calls of one call of Ray, which actor `index` has run or lost. `at` is its process.
    pub(super) fn complete(
        self: &Arc<Self>,
        index: usize,
        at: Option<Worker>,
        results: impl IntoIterator<Item = (InFlightCall, RayResult)>,
    ) {
        let at = at.or(Some(Worker { index, pid: 0 }));
        for (call, result) in results {
            // Before its caller can make another call, which would be sent to the same process.
            match &result {
                Err(RayError::ActorDied { is_restarting, .. }) => self.on_actor_lost(index, !is_restarting),
                // Ray has restarted the actor without reporting it: the call has not run.
                Err(RayError::WorkerDied { .. }) | Ok((Reply { answer: Answer::Missing, .. }, _)) => {
                    self.on_actor_lost(index, false);
                }
                Ok((Reply { took: Some(took), .. }, _)) => self.state.lock().times.record(&call, *took),
                Ok(_) | Err(_) => {}
            }
            if let Completion::Missing = call.complete(result, &self.registry, at) {
                call.returned();
                let stranded = self.state.lock().put_back(call);
                if let Some(call) = stranded {
                    call.answer(Err(CallError::ShutDown { method: call.method().to_owned() }));
                }
            }
        }
        self.dispatch_queued();
    }
}
