//! The thread engine: threads of this process as workers.
//!
//! Each thread loads its own pipelines, which borrow their weights from the arena. A call moves its
//! arguments to the thread in memory: no tensor is copied.
//!
//! | file | what |
//! | --- | --- |
//! | `pool` | `Threads`, its builder, and threads as a backend |
//! | `thread_engine` | the engine behind it: starts and joins the threads |
//! | `shared` | state that the threads and their callers share |
//! | `worker` | main loop of a thread |
//! | `mailbox` | hands a call to an idle thread, and its deadline to a running one |

mod mailbox;
mod pool;
mod shared;
mod thread_engine;
mod worker;

pub use self::pool::{Threads, ThreadsBuilder};
