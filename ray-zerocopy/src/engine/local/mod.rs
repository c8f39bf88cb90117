//! The local engine: worker processes of this machine, which run this very executable.
//!
//! | file | what |
//! | --- | --- |
//! | `pool` | `LocalPool`, its builder, and this machine as a backend |
//! | `local_engine` | the engine behind a pool: starts and joins its threads |
//! | `conn_state` | state machine of the connection to one worker |
//! | `worker_conn` | the socket to one worker, and the lock around its state |
//! | `dispatch` | state shared by the threads: sends assignments, and requeues calls that were not run |
//! | `admission` | entry of calls into the pool |
//! | `replies` | handling of workers' replies |
//! | `stream_conn` | the items of the stream that a worker runs |
//! | `bundle_conn`, `bundle_replies` | the same for several small calls that were sent together |
//! | `inline_wait` | the fast path: the calling thread reads the reply itself |
//! | `supervisor` | one thread for each worker: starts its process, reads its replies, and detects its end |
//! | `process` | starts and ends a worker process |
//! | `child` | waits for a child process and kills it |
//! | `worker_memory` | memory that a worker takes |
//! | `executable` | the command that starts this program again |
//! | `worker` | the other side: main loop of a worker process |
//! | `call_inbox` | what the worker is told about the call that it runs |
//! | `run_bundle` | how it runs several small calls |
//! | `shared_area` | memory that an owner and one worker share, beside the socket |
//! | `bundle`, `item_ring` | what both say there about several small calls, and the items of a stream |
//! | `recycled` | memory of large messages that is used again |
//! | `transport`, `protocol` | packets between owner and worker, and the messages in them |
//!
//! The files from `conn_state` to `supervisor`, and those of `queue`, take their locks from
//! `os::sync`. They are compiled a second time for the model checker `loom`, with a simulated
//! socket and process: see `tests/loom`.

mod admission;
mod bundle;
mod bundle_conn;
mod bundle_replies;
mod call_inbox;
pub(crate) mod child;
mod conn_state;
mod dispatch;
pub(crate) mod executable;
mod inline_wait;
mod item_ring;
mod local_engine;
mod pool;
pub(crate) mod process;
pub(crate) mod protocol;
mod recycled;
mod replies;
mod run_bundle;
mod shared_area;
mod stream_conn;
mod supervisor;
pub(crate) mod transport;
pub(crate) mod worker;
mod worker_conn;
mod worker_memory;

#[cfg(test)]
mod conn_state_tests;
#[cfg(test)]
mod recycled_tests;

pub(crate) use self::pool::Machine;
pub use self::pool::{LocalPool, LocalPoolBuilder};
