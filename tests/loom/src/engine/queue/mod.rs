//! The queue of a pool, compiled from its own folder.

#[path = "../../../../../ray-zerocopy/src/engine/queue/call_queue.rs"]
pub(in crate::engine) mod call_queue;
#[path = "../../../../../ray-zerocopy/src/engine/queue/deadlines.rs"]
pub(in crate::engine) mod deadlines;
#[path = "../../../../../ray-zerocopy/src/engine/queue/failures.rs"]
pub(in crate::engine) mod failures;
#[path = "../../../../../ray-zerocopy/src/engine/queue/job.rs"]
pub(in crate::engine) mod job;
#[path = "../../../../../ray-zerocopy/src/engine/queue/scheduler.rs"]
pub(in crate::engine) mod scheduler;
#[path = "../../../../../ray-zerocopy/src/engine/queue/worker_slot.rs"]
pub(in crate::engine) mod worker_slot;
