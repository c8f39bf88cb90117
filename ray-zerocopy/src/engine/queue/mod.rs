//! The queue of a pool, which the engines of this machine share: which worker runs which call next.
//!
//! | file | what |
//! | --- | --- |
//! | `call_queue` | the scheduler, its lock, and the entry of calls |
//! | `scheduler`, `worker_slot` | the queue, the idle workers, and the assignment of calls to them, as plain data |
//! | `bundle`, `bundle_size` | small calls that are sent to a worker together, and how many |
//! | `elastic`, `report` | growing and shrinking, and what a report says of it |
//! | `restart` | replaces the processes of workers one after the other |
//! | `job` | the work of a worker, and what the scheduler reads of a call |
//! | `deadlines` | one thread for all deadlines of a pool |
//! | `failures` | answers of calls that do not run |

pub(in crate::engine) mod bundle;
pub(crate) mod bundle_size;
pub(in crate::engine) mod call_queue;
pub(in crate::engine) mod deadlines;
pub(in crate::engine) mod elastic;
pub(in crate::engine) mod failures;
pub(in crate::engine) mod job;
pub(crate) mod report;
pub(in crate::engine) mod restart;
pub(in crate::engine) mod scheduler;
pub(in crate::engine) mod worker_slot;

#[cfg(test)]
mod bundle_tests;
#[cfg(test)]
mod elastic_tests;
#[cfg(test)]
mod scheduler_tests;
#[cfg(test)]
pub(in crate::engine) mod test_call;
