//! A call that is alone: its caller receives the answer itself.
//!
//! Ray can call back when a result is there, on a thread of its own, which wakes the caller: that is two threads where one would do. So
//! an answer is read by nobody at first. It is read by the first of
//! - its caller, when they wait for it;
//! - Ray's thread, when anybody needs that: the caller polls or drops the `Pending`, somebody else makes a call, or the
//!   workers are shut down.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;

use super::compiled_graph::CompiledGraphChannel;
use super::lock;
use super::timer::TimerThread;
use crate::engine::call::Receive;
use crate::engine::message::Incoming;
use crate::error::ray::RayError;
use crate::ray::api::cluster::Cluster;
use crate::ray::api::object;
use crate::ray::wire::protocol::Reply;
use crate::ray::worker::module::Callback;

/// What an answer is for.
pub(super) type Land = Box<dyn FnOnce(Result<(Reply, Incoming), RayError>) + Send>;

/// An answer that is on its way.
pub(super) struct UnreadReply {
    cluster: Cluster,
    reference: Py<PyAny>,
    method: &'static str,
    /// Where callers are woken.
    answers: Arc<TimerThread>,
    /// The channel that it comes through, if it is one of Ray's graphs, which do not call back.
    direct: Option<Arc<CompiledGraphChannel>>,
    /// Gone when somebody reads.
    land: Mutex<Option<Land>>,
}

impl UnreadReply {
    pub(super) fn new(
        cluster: &Cluster,
        reference: Py<PyAny>,
        method: &'static str,
        answers: &Arc<TimerThread>,
        direct: Option<Arc<CompiledGraphChannel>>,
        land: Land,
    ) -> Arc<Self> {
        let (cluster, answers) = (cluster.clone(), Arc::clone(answers));
        Arc::new(Self { cluster, reference, method, answers, direct, land: Mutex::new(Some(land)) })
    }

    fn take(&self) -> Option<Land> {
        lock(&self.land).take()
    }

    /// The caller reads, and waits for it.
    fn by_caller(&self) {
        if let Some(land) = self.take() {
            self.read(land);
        }
    }

    fn read(&self, land: Land) {
        let get = || {
            self.cluster.ask(self.method, |py| {
                let object = py.import("ray")?.call_method1("get", (&self.reference,))?;
                Ok(object::result(&object, self.method))
            })
        };
        let got = match &self.direct {
            Some(direct) => direct.read(get),
            None => get(),
        };
        land(got.and_then(|result| result));
    }

    /// Ray reads, when the answer is there.
    ///
    /// The reference is held until Ray has called back, whoever else has dropped it. Ray calls back in two steps for a result in
    /// its store, and aborts the process in the second if this side has no reference left.
    pub(super) fn by_ray(self: &Arc<Self>) {
        if self.cluster.0.is_forked() {
            return;
        }
        let Some(land) = self.take() else { return };
        if let Some(direct) = &self.direct {
            let this = Arc::clone(self);
            return direct.read_later(move || this.read(land));
        }
        let delivery = Delivery { land: Arc::new(Mutex::new(Some(land))), answers: Arc::clone(&self.answers) };
        let left = delivery.clone();
        let owed = self.cluster.0.owe(move || left.deliver(Err(RayError::ShutDown), None));
        let (this, done) = (Arc::clone(self), delivery.clone());
        let done = Box::new(move |result: &Bound<'_, PyAny>| {
            let result = object::result(result, this.method);
            this.cluster.0.settle(owed);
            done.deliver(result, Some(this));
        });
        let asked = self.cluster.ask(self.method, |py| {
            let callback = Bound::new(py, Callback(Mutex::new(Some(done))))?;
            self.reference.bind(py).call_method1("_on_completed", (callback,)).map(drop)
        });
        if let Err(error) = asked {
            self.cluster.0.settle(owed);
            delivery.deliver(Err(error), None);
        }
    }
}

/// Delivers one answer once, on a thread of the engine's: a caller that is woken may run code of its own, which could wait
/// for Ray's threads, or for Python.
#[derive(Clone)]
struct Delivery {
    land: Arc<Mutex<Option<Land>>>,
    answers: Arc<TimerThread>,
}

impl Delivery {
    /// `with` is dropped there, too: it may hold the last handle of the cluster.
    fn deliver(&self, result: Result<(Reply, Incoming), RayError>, with: Option<Arc<UnreadReply>>) {
        let land = lock(&self.land).take();
        self.answers.soon(move || {
            if let Some(land) = land {
                land(result);
            }
            drop(with);
        });
    }
}

/// The right of a caller to read. Dropped, the right is Ray's.
pub(super) struct InlineReceiver(pub(super) Arc<UnreadReply>);

impl Receive for InlineReceiver {
    fn receive(self: Box<Self>) {
        self.0.by_caller();
    }
}

impl Drop for InlineReceiver {
    /// Does nothing in a fork: see `by_ray`.
    fn drop(&mut self) {
        self.0.by_ray();
    }
}

/// The one answer of an engine that its caller may read: the last.
#[derive(Default)]
pub(super) struct LastUnread(Mutex<Option<std::sync::Weak<UnreadReply>>>);

impl LastUnread {
    /// Has Ray read what nobody reads: somebody else needs the engine.
    pub(super) fn adopt(&self) {
        let last = lock(&self.0).take().and_then(|last| last.upgrade());
        if let Some(last) = last {
            last.by_ray();
        }
    }

    pub(super) fn lone(&self, unread: &Arc<UnreadReply>) -> Box<dyn Receive> {
        *lock(&self.0) = Some(Arc::downgrade(unread));
        Box::new(InlineReceiver(Arc::clone(unread)))
    }
}
