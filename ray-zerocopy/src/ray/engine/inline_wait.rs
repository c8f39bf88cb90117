//! Inline completion: the calling thread reads the reply itself.
//!
//! Ray can call back when a result is available, on a thread of its own, which then wakes the
//! caller: two threads where one would do. So a reply is unread at first. It is read by the first
//! of
//! - its caller, when it waits for the reply;
//! - Ray's thread, when that is needed: the caller polls or drops the `Pending`, another call is
//!   made, the workers are shut down, or the caller does not wait for a while. The reply may be that
//!   the worker lacks the pipeline, so that the call has to be sent again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::compiled_graph::CompiledGraphChannel;
use crate::engine::call::Receive;
use crate::engine::message::Incoming;
use crate::engine::timer::TimerThread;
use crate::error::ray::RayError;
use crate::os::sync::Mutex;
use crate::ray::api::cluster::Cluster;
use crate::ray::api::object;
use crate::ray::wire::protocol::Reply;
use crate::ray::worker::module::Callback;

/// Time after which Ray reads a reply that no thread reads.
const PATIENCE: Duration = Duration::from_millis(100);

/// Callback that takes a result.
pub(super) type OnResult = Box<dyn FnOnce(Result<(Reply, Incoming), RayError>) + Send>;

/// A reply that has not been read.
pub(super) struct UnreadReply {
    cluster: Cluster,
    reference: Py<PyAny>,
    method: &'static str,
    /// Thread on which callers are woken.
    delivery_thread: Arc<TimerThread>,
    /// The compiled graph that the reply comes from, if there is one. Compiled graphs do not call
    /// back.
    direct: Option<Arc<CompiledGraphChannel>>,
    /// Taken by the first reader.
    on_result: Mutex<Option<OnResult>>,
}

impl UnreadReply {
    pub(super) fn new(
        cluster: &Cluster,
        reference: Py<PyAny>,
        method: &'static str,
        delivery_thread: &Arc<TimerThread>,
        direct: Option<Arc<CompiledGraphChannel>>,
        on_result: OnResult,
    ) -> Arc<Self> {
        let (cluster, delivery_thread) = (cluster.clone(), Arc::clone(delivery_thread));
        Arc::new(Self { cluster, reference, method, delivery_thread, direct, on_result: Mutex::new(Some(on_result)) })
    }

    fn take(&self) -> Option<OnResult> {
        self.on_result.lock().take()
    }

    /// Reads the reply on the calling thread. Blocks until it is available.
    fn read_by_caller(&self) {
        if let Some(on_result) = self.take() {
            self.read(on_result);
        }
    }

    fn read(&self, on_result: OnResult) {
        let get = || {
            self.cluster.ask(self.method, |py| {
                let object = py.import("ray")?.call_method1("get", (&self.reference,))?;
                Ok(object::result(&object, self.method))
            })
        };
        let result = match &self.direct {
            Some(direct) => direct.read(get),
            None => get(),
        };
        on_result(result.and_then(|result| result));
    }

    /// Lets Ray call back when the reply is available.
    ///
    /// The reference is held until Ray has called back, even if all other references are dropped.
    /// For a result in its store, Ray calls back in two steps, and the second one aborts the
    /// process if this side has no reference left.
    pub(super) fn read_by_ray(self: &Arc<Self>) {
        if self.cluster.0.is_forked() {
            return;
        }
        let Some(on_result) = self.take() else { return };
        if let Some(direct) = &self.direct {
            let this = Arc::clone(self);
            return direct.read_later(move || this.read(on_result));
        }
        let delivery = Delivery {
            on_result: Arc::new(Mutex::new(Some(on_result))),
            delivery_thread: Arc::clone(&self.delivery_thread),
        };
        let on_shutdown = delivery.clone();
        let pending = self.cluster.0.owe(move || on_shutdown.deliver(Err(RayError::ShutDown), None));
        let (this, done) = (Arc::clone(self), delivery.clone());
        let done = Box::new(move |result: &Bound<'_, PyAny>| {
            let result = object::result(result, this.method);
            this.cluster.0.settle(pending);
            done.deliver(result, Some(this));
        });
        let registered = self.cluster.ask(self.method, |py| {
            let callback = Bound::new(py, Callback(Mutex::new(Some(done))))?;
            self.reference.bind(py).call_method1("_on_completed", (callback,)).map(drop)
        });
        if let Err(error) = registered {
            self.cluster.0.settle(pending);
            delivery.deliver(Err(error), None);
        }
    }
}

/// Delivers one result once, on a thread of the engine: a woken caller may run its own code, which
/// could wait for Ray's threads, or for Python.
#[derive(Clone)]
struct Delivery {
    on_result: Arc<Mutex<Option<OnResult>>>,
    delivery_thread: Arc<TimerThread>,
}

impl Delivery {
    /// Drops `with` on that thread as well: it may hold the last handle of the cluster.
    fn deliver(&self, result: Result<(Reply, Incoming), RayError>, with: Option<Arc<UnreadReply>>) {
        let on_result = self.on_result.lock().take();
        self.delivery_thread.spawn(move || {
            if let Some(on_result) = on_result {
                on_result(result);
            }
            drop(with);
        });
    }
}

/// The caller's exclusive right to read. Dropping it passes the right to Ray.
pub(super) struct InlineReceiver(pub(super) Arc<UnreadReply>);

impl Receive for InlineReceiver {
    fn receive(self: Box<Self>, _has_arrived: &dyn Fn() -> bool) -> Option<Box<dyn Receive>> {
        self.0.read_by_caller();
        None
    }

    /// Ray takes longer than that.
    fn receive_soon(self: Box<Self>, _has_arrived: &dyn Fn() -> bool) {}
}

impl Drop for InlineReceiver {
    /// Does nothing in a fork: see `read_by_ray`.
    fn drop(&mut self) {
        self.0.read_by_ray();
    }
}

/// The only reply of an engine that its caller may read: that of the last call.
#[derive(Default)]
pub(super) struct LastUnread(Mutex<Option<std::sync::Weak<UnreadReply>>>);

impl LastUnread {
    /// Lets Ray read the last reply if it is unread: another caller needs the engine.
    pub(super) fn hand_over(&self) {
        let last = self.0.lock().take().and_then(|last| last.upgrade());
        if let Some(last) = last {
            last.read_by_ray();
        }
    }

    /// Returns the caller's right to read a new reply. It ends after [`PATIENCE`].
    pub(super) fn receiver(&self, unread: &Arc<UnreadReply>, timer: &TimerThread) -> Box<dyn Receive> {
        let reply = Arc::downgrade(unread);
        *self.0.lock() = Some(reply.clone());
        timer.run_at(Instant::now() + PATIENCE, move || {
            if let Some(reply) = reply.upgrade() {
                reply.read_by_ray();
            }
        });
        Box::new(InlineReceiver(Arc::clone(unread)))
    }
}
