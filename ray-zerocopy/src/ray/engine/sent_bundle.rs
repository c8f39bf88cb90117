//! A bundle that has been sent to Ray, whose calls can be cancelled one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::in_flight::InFlightCall;
use crate::engine::timer::TimerThread;
use crate::ray::api::cluster::Cluster;
use crate::ray::wire::bundle::CallBundle;
use crate::ray::wire::cancelled::BundleId;
use crate::ray::wire::frame::Payload;
use crate::ray::wire::protocol::ProgramId;

pub(super) struct SentBundle {
    id: BundleId,
    /// Whether the list of its cancelled calls has entries.
    has_cancelled: AtomicBool,
    /// Whether Ray has a result.
    is_over: AtomicBool,
}

impl SentBundle {
    /// From here on, a cancellation of one of the calls reaches the worker.
    pub(super) fn new(program: &ProgramId, calls: &[InFlightCall]) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = BundleId::new(program, LAST.fetch_add(1, Ordering::Relaxed));
        let this = Arc::new(Self { id, has_cancelled: AtomicBool::new(false), is_over: AtomicBool::new(false) });
        for (number, call) in calls.iter().enumerate() {
            call.sent_in(&this, number);
        }
        this
    }

    /// The methods of the calls that are not completed, and the arguments.
    pub(super) fn encode(&self, calls: &[InFlightCall]) -> (CallBundle, Payload) {
        let handler = |call: &InFlightCall| call.with(|call| call.handler.clone());
        CallBundle::new(self.id.id, calls.iter().map(|call| Some((handler(call)?, call.payload()))))
    }

    /// Tells the worker that a call is cancelled.
    pub(super) fn cancel(&self, cluster: &Cluster, call: usize) {
        // Either the end sees that there is an entry, or this sees the end.
        self.has_cancelled.store(true, Ordering::SeqCst);
        // An error is that of a cluster that has ended.
        let _ = cluster.ask("cancel", |py| self.id.cancel(py, call));
        if self.is_over.load(Ordering::SeqCst) {
            self.forget(cluster);
        }
    }

    /// Records that Ray has a result, and deletes the list of cancelled calls.
    pub(super) fn end(self: &Arc<Self>, cluster: &Cluster, timer: &TimerThread) {
        self.is_over.store(true, Ordering::SeqCst);
        if self.has_cancelled.load(Ordering::SeqCst) {
            let (this, cluster) = (Arc::clone(self), cluster.clone());
            timer.spawn(move || this.forget(&cluster));
        }
    }

    fn forget(&self, cluster: &Cluster) {
        // As above.
        let _ = cluster.ask("cancel", |py| self.id.forget(py));
    }
}

/// The method of calls, as errors of Ray name it.
pub(super) fn method_of(calls: &[InFlightCall]) -> &'static str {
    let method = calls.first().map(InFlightCall::method);
    let is_common = |method: &&'static str| calls.iter().all(|call| call.method() == *method);
    method.filter(is_common).unwrap_or("several methods")
}
