//! Engines: where calls run.
//!
//! An engine moves opaque arenas and opaque calls. It knows nothing of wrappers or of what a pipeline is: a program is
//! an arena, the code that loads it, and a device; a call is the code to run on it, and bytes.

pub(crate) mod backend;
pub(crate) mod blocking;
pub(crate) mod call;
pub(crate) mod frame;
pub(crate) mod local;
pub(crate) mod message;
pub(crate) mod program;
pub(crate) mod registry;
pub(crate) mod served;
pub(crate) mod settings;
pub(crate) mod sys;

use self::call::Call;
use self::call::Submitted;
use self::program::Attached;

pub use self::backend::Backend;
pub use self::local::LocalPoolBuilder;
pub use crate::error::call::Worker;

/// Where calls run.
pub(crate) trait Engine: Send + Sync {
    /// Hands a call to the engine. Every call that is handed over is answered, whatever happens to workers. Its caller may
    /// get the right to receive the answer, which is quicker than to have it received.
    ///
    /// # Errors
    /// Gives the call back if the engine does not take it: the queue is full and `wait` is not set, the deadline passed
    /// while it waited for a place, or the engine has been shut down.
    fn submit(&self, call: Call, wait: bool) -> Submitted;

    /// Frees what the workers hold for a program.
    fn forget(&self, key: u64);

    /// The workers that have a process now.
    fn workers(&self) -> Vec<Worker>;

    /// Whether a worker is a process of this machine.
    fn is_here(&self, worker: Worker) -> bool {
        let _ = worker;
        true
    }

    /// How many workers there are, with those that are being started.
    fn size(&self) -> usize;

    /// Runs the calls that wait, takes no new ones, and ends the workers. Returns when they are gone.
    fn shut_down(&self);

    /// Ends the workers at once, whatever they do. Calls that wait or run are errors.
    fn abort(&self);

    /// What each worker said when it loaded the program.
    fn attached(&self, key: u64) -> Vec<(Worker, Attached)>;
}
