//! The queue of a pool, compiled from its own folder.

#[path = "../../../../../ray-zerocopy/src/engine/queue/bundle.rs"]
pub(in crate::engine) mod bundle;
#[path = "../../../../../ray-zerocopy/src/engine/queue/bundle_size.rs"]
pub(crate) mod bundle_size;
#[path = "../../../../../ray-zerocopy/src/engine/queue/call_queue.rs"]
pub(in crate::engine) mod call_queue;
#[path = "../../../../../ray-zerocopy/src/engine/queue/deadlines.rs"]
pub(in crate::engine) mod deadlines;
#[path = "../../../../../ray-zerocopy/src/engine/queue/elastic.rs"]
pub(in crate::engine) mod elastic;
#[path = "../../../../../ray-zerocopy/src/engine/queue/failures.rs"]
pub(in crate::engine) mod failures;
#[path = "../../../../../ray-zerocopy/src/engine/queue/job.rs"]
pub(in crate::engine) mod job;
pub(in crate::engine) mod report {
    //! The report of a pool, without its text.

    pub(crate) struct PoolReport {
        pub(crate) workers: usize,
        pub(crate) min: usize,
        pub(crate) max: usize,
        pub(crate) grown: u64,
        pub(crate) shrunk: u64,
        pub(crate) refused: u64,
        pub(crate) refusal: Option<String>,
    }
}

#[path = "../../../../../ray-zerocopy/src/engine/queue/restart.rs"]
pub(in crate::engine) mod restart;
#[path = "../../../../../ray-zerocopy/src/engine/queue/scheduler.rs"]
pub(in crate::engine) mod scheduler;
#[path = "../../../../../ray-zerocopy/src/engine/queue/worker_slot.rs"]
pub(in crate::engine) mod worker_slot;
