//! Engines: where calls run.
//!
//! An engine transfers opaque arenas and opaque calls, and does not depend on wrappers or
//! pipelines. A program is an arena, the code that loads it, and a device. A call is the code to
//! run on a program, and bytes.
//!
//! | file | what |
//! | --- | --- |
//! | `backend` | the interface between wrappers and engines |
//! | `call/` | a call, its caller, and how its result is delivered; calls that are put together |
//! | `cancellation` | cancellation inside of a method |
//! | `deadline` | time that a call has left |
//! | `program` | what a worker loads before it runs calls |
//! | `tally` | how the calls of a program have ended |
//! | `figures/` | counts and times of calls and workers, for metrics and status reports |
//! | `live_programs` | the programs of this process that run on an engine |
//! | `served` | the worker's side of a program: loading it, and running a method |
//! | `spin` | short waits that do not sleep |
//! | `trace/` | spans of calls, which cross processes |
//! | `timer` | threads that run closures at given instants |
//! | `settings`, `pool_size` | number of workers, threads and queue size |
//! | `worker_nodes` | the NUMA node of each worker, and the copy of the weights that it opens |
//! | `message` | values and tensors as segments of bytes |
//! | `frame` | messages as packets |
//! | `blocking` | waits that release Python's lock |
//! | `registry` | functions of this crate that are looked up by name |
//! | `sys` | functions as tokens that another process can resolve |
//! | `queue/` | the queue of a pool: which worker runs which call next |
//! | `local/` | the engine that runs calls in processes of this machine |
//! | `threads/` | the engine that runs calls in threads of this process |

pub(crate) mod backend;
pub(crate) mod blocking;
pub(crate) mod call;
pub(crate) mod cancellation;
pub(crate) mod deadline;
pub(crate) mod figures;
pub(crate) mod frame;
pub(crate) mod live_programs;
pub(crate) mod local;
pub(crate) mod message;
pub(crate) mod pool_size;
pub(crate) mod program;
pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod served;
pub(crate) mod settings;
pub(crate) mod spin;
pub(crate) mod sys;
pub(crate) mod tally;
pub(crate) mod threads;
pub(crate) mod timer;
pub(crate) mod trace;
pub(crate) mod worker_nodes;

use std::sync::Arc;
use std::time::Duration;

use self::call::Call;
use self::call::Submitted;
use self::program::{Attached, Program};
use self::queue::report::PoolReport;
use crate::arena::arena::Arena;
use crate::arena::memory::policy::MemoryPolicy;

pub use self::backend::Backend;
pub use self::local::LocalPoolBuilder;
pub use self::pool_size::PoolSize;
pub use self::queue::report::Drained;
pub use self::threads::ThreadsBuilder;
use crate::error::Result;
use crate::error::call::CallError;
pub use crate::error::call::Worker;

/// An engine: accepts calls and runs them on its workers.
pub(crate) trait Engine: Send + Sync {
    /// Its name in metrics: `local`, `threads` or `ray`.
    fn kind(&self) -> &'static str;

    /// Submits a call. Every call that is accepted gets a result, whatever happens to workers. The
    /// caller may get the right to receive the result on its own thread, which is faster than
    /// waiting for another thread.
    ///
    /// # Errors
    /// Returns the call if the engine does not accept it: the queue is full and `wait` is not set,
    /// the deadline passed while waiting for a place in the queue, or the engine has been shut
    /// down.
    fn submit(&self, call: Call, wait: bool) -> Submitted;

    /// Removes queued calls that have been cancelled, and tells the workers that run such calls.
    fn cancel(&self);

    /// Tells the workers that run streams how many items they may send, after readers have taken some.
    fn raise_limits(&self) {}

    /// Frees the workers' resources of a program.
    fn forget(&self, key: u64);

    /// The workers that currently have a process.
    fn workers(&self) -> Vec<Worker>;

    /// Returns `true` if the worker is a process of this machine.
    fn is_here(&self, worker: Worker) -> bool {
        let _ = worker;
        true
    }

    /// Number of workers, including those that are starting. The largest number if it changes.
    fn size(&self) -> usize;

    /// Returns `true` as long as it accepts new calls.
    fn is_open(&self) -> bool;

    /// Number of calls that may wait in its queue.
    fn capacity(&self) -> usize;

    /// Number of batches that run at the same time, if the engine passes each call on at once. An
    /// engine with a queue returns `None`: it fills the tickets of batches when workers are free.
    fn batches_at_once(&self) -> Option<usize> {
        None
    }

    /// Runs the queued calls, accepts no new ones, and ends the workers. Returns when all of them
    /// have ended.
    fn shut_down(&self);

    /// Runs the queued calls and accepts no new ones, as [`shut_down`](Self::shut_down) does, but not
    /// longer than `timeout`. Then aborts the rest. Returns the number of calls that were aborted.
    fn drain(&self, timeout: Duration) -> usize;

    /// Replaces each worker, one after the other, without a failed call.
    ///
    /// # Errors
    /// The first failure of a new worker, or that the engine cannot do it.
    fn restart(&self) -> std::result::Result<(), CallError>;

    /// The workers that have a process, or are about to. Each of them has to load the next generation of a
    /// program before calls run on it. Empty if there are none, or if a worker cannot be chosen: any of them
    /// tries the program then, and the others load it with their first call.
    ///
    /// # Errors
    /// If the engine cannot replace a program.
    fn live_workers(&self) -> std::result::Result<Vec<usize>, CallError>;

    /// Moves an arena to memory that the workers can open.
    ///
    /// # Errors
    /// If they cannot open it.
    fn adopt(&self, arena: Arena) -> Result<Arena> {
        Ok(arena.handed_over()?)
    }

    /// Makes the copies of an arena that a memory policy asks for, on the NUMA nodes of the workers. Does
    /// nothing if the workers do not get the arena from this process.
    fn replicate(&self, arena: &Arena, memory: MemoryPolicy) {
        let _ = (arena, memory);
    }

    /// Makes a program the one that actors load when they start.
    fn set_program(&self, program: &Arc<Program>);

    /// Ends the workers immediately, even if they are running a call. Queued and running calls
    /// fail.
    fn abort(&self);

    /// How the pool has grown and shrunk. Returns `None` if the engine has no pool of its own.
    fn pool(&self) -> Option<PoolReport> {
        None
    }

    /// Returns what each worker reported when it loaded the program.
    fn attached(&self, key: u64) -> Vec<(Worker, Attached)>;
}
