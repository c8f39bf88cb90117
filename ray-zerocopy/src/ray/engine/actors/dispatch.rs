//! Sends calls to actors, and completes them with what Ray returns.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::choice::Assignment;
use super::slot::Slot;
use super::{Shared, has_shut_down};
use crate::engine::call::items::Items;
use crate::engine::program::Program;
use crate::engine::trace::setup;
use crate::error::call::{CallError, Worker};
use crate::error::ray::RayError;
use crate::ray::api::object::Held;
use crate::ray::engine::bundling::send_as_one;
use crate::ray::engine::in_flight::{Completion, InFlightCall, RayResult};
use crate::ray::engine::inline_wait::UnreadReply;
use crate::ray::engine::{in_python, load_of, program_id, streams};
use crate::ray::wire::frame::EncodedMessage;
use crate::ray::wire::protocol::{Answer, Order, ProgramId, Reply, Request, Target};

impl Shared {
    pub(super) fn request(&self, order: Order) -> Request {
        Request {
            binary: self.target.cluster.0.binary,
            threads: self.target.options.threads(),
            own: !self.target.options.has_compiled_graph() && !self.has_streams,
            whole: false,
            set_up: setup::get(),
            order,
        }
    }

    /// Creates the target of a call to an actor. Returns the objects of the arena, if the actor has not loaded the
    /// program.
    pub(super) fn program_of(
        &self,
        index: usize,
        program: &Program,
        method: &str,
    ) -> Result<(Target, Vec<Arc<Held>>), RayError> {
        let has_loaded = |slot: &Slot| slot.loaded.contains(&program.key);
        let has_loaded = self.state.lock().slots.get(index).is_some_and(has_loaded);
        let (load, arena) = (!has_loaded).then(|| load_of(program, method)).transpose()?.unzip();
        let program = program_id(&self.target.cluster, program);
        Ok((Target { program, load, live: None }, arena.unwrap_or_default()))
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
        // Another call of the same process may have reported its death.
        slot.worker.or(slot.lost)
    }

    fn try_send(self: &Arc<Self>, index: usize, flight: &InFlightCall) -> Result<Option<Arc<UnreadReply>>, RayError> {
        let cluster = &self.target.cluster;
        let call = flight.with(|call| (Arc::clone(&call.program), call.handler.clone(), call.state_of));
        let Some((program, handler, state_of)) = call else {
            flight.not_sent();
            self.call_ended(index, flight);
            return Ok(None);
        };
        let (target, arena) = self.program_of(index, &program, flight.method())?;
        let is_direct = arena.is_empty() && flight.payload().is_small() && flight.items().is_none();
        let state_of = state_of.map(|key| ProgramId { key, ..target.program });
        let trace = flight.trace(Some(index), self.worker(index));
        let direct = self.state.lock().slots.get(index).and_then(|slot| slot.direct.clone());
        let direct = direct.filter(|_| is_direct);
        // Ray never cancels a call that waits for an actor: the actor would wait for the call's number in the order, for
        // 30 seconds, and then drop all that follow. What runs in a compiled graph cannot be cancelled.
        let sent = direct.is_none().then(|| send_as_one(&target.program, std::slice::from_ref(flight)));
        let bundle = sent.as_ref().map(|sent| sent.id().id);
        let order = Order::Call { target, handler, state_of, bundle, trace };
        let request = Request { whole: direct.is_some(), ..self.request(order) };
        let message = EncodedMessage::with(&request, flight.payload().clone());
        let reference = message.and_then(|message| match &direct {
            Some(direct) => direct.send(message, flight.method()),
            None => cluster.ask(flight.method(), |py| {
                let call = match flight.items() {
                    Some(items) => self.call_stream(py, index, items)?,
                    None => self.call(py, index)?,
                };
                Ok(call.bind(py).call1(message.arguments(py, in_python(py, &arena))?)?.unbind())
            }),
        });
        if let (Err(_), Some(sent)) = (&reference, &sent) {
            sent.end(cluster, &self.timer);
        }
        let reference = reference?;
        let (shared, completed) = (Arc::clone(self), flight.clone());
        let on_result = Box::new(move |result| {
            if let Some(sent) = sent {
                sent.end(&shared.target.cluster, &shared.timer);
            }
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

    /// The process of an actor, if it is known.
    pub(super) fn worker(&self, index: usize) -> Option<Worker> {
        self.state.lock().slots.get(index).and_then(|slot| slot.worker)
    }

    /// Lets the actors drop a program of which there are no more calls.
    pub(super) fn forget(&self, key: u64) {
        let holders: Vec<_> = {
            let mut state = self.state.lock();
            state.times.forget(key);
            let slots = state.slots.iter_mut().enumerate();
            slots.filter_map(|(index, slot)| slot.loaded.remove(&key).then_some(index)).collect()
        };
        let cluster = &self.target.cluster;
        let program = ProgramId { driver: cluster.0.driver, key };
        for index in holders {
            // An actor that cannot be asked has died, and what it had loaded with it.
            let _ =
                EncodedMessage::new(&self.request(Order::Forget { program }), Default::default()).and_then(|order| {
                    cluster
                        .ask("forget", |py| self.call(py, index)?.bind(py).call1(order.arguments(py, None)?).map(drop))
                });
        }
    }

    /// Notes what a reply says about the actor and the method.
    fn note(&self, index: usize, call: &InFlightCall, reply: &Reply) {
        let mut state = self.state.lock();
        if let Some(took) = reply.took {
            state.times.record(call, took);
        }
        if let (Some(_), Some(slot)) = (&reply.attached, state.slots.get_mut(index))
            && slot.worker.is_some_and(|worker| worker.pid == reply.from.pid)
        {
            slot.loaded.insert(call.program_key());
        }
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
                Ok((reply, _)) => self.note(index, &call, reply),
                Err(_) => {}
            }
            let completion = call.complete(result, &self.registry, at);
            if let Completion::Lost = completion {
                call.lost_an_attempt();
            }
            if let Completion::Missing | Completion::Lost = completion {
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
