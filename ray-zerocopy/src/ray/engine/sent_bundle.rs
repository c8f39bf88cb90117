//! A bundle that has been sent to Ray, whose calls can be cancelled one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::engine::timer::TimerThread;
use crate::ray::api::cluster::Cluster;
use crate::ray::wire::cancelled::BundleId;
use crate::ray::wire::protocol::ProgramId;

pub(super) struct SentBundle {
    id: BundleId,
    /// Whether the list of its cancelled calls has entries.
    has_cancelled: AtomicBool,
    /// Whether Ray has a result.
    is_over: AtomicBool,
}

impl SentBundle {
    pub(super) fn new(program: &ProgramId) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = BundleId::new(program, LAST.fetch_add(1, Ordering::Relaxed));
        Arc::new(Self { id, has_cancelled: AtomicBool::new(false), is_over: AtomicBool::new(false) })
    }

    pub(super) fn id(&self) -> BundleId {
        self.id
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
