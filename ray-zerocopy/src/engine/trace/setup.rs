//! What worker processes run when they start, to observe themselves.

use std::any::Any;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::engine::sys::entry::{EntryError, FnToken};
use crate::os::sync::Mutex;
use crate::panics;

/// A function of the user's that a worker process runs when it starts. The process keeps the result, and drops
/// it before it exits.
pub(crate) type SetUp = fn(String) -> Box<dyn Any>;

/// What a worker process runs when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkerSetUp {
    function: FnToken,
    argument: String,
}

static SET_UP: Mutex<Option<WorkerSetUp>> = Mutex::new(None);
/// Whether there is one, or this process is a worker that has run it.
static IS_SET: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// What the set-up of this process has returned.
    static KEPT: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

pub(super) fn is_set() -> bool {
    IS_SET.load(Ordering::Relaxed)
}

/// Sets what worker processes run when they start from now on.
pub(crate) fn set(function: SetUp, argument: String) -> Result<(), EntryError> {
    let function = FnToken::of(function)?;
    *SET_UP.lock() = Some(WorkerSetUp { function, argument });
    IS_SET.store(true, Ordering::Relaxed);
    Ok(())
}

/// What worker processes run when they start.
pub(crate) fn get() -> Option<WorkerSetUp> {
    is_set().then(|| SET_UP.lock().clone()).flatten()
}

impl WorkerSetUp {
    /// Runs it, in a worker process.
    ///
    /// # Errors
    /// Why it could not be run.
    pub(crate) fn run(self) -> Result<(), String> {
        let function: SetUp = self.function.resolve().map_err(|error| error.to_string())?;
        let kept = panics::caught(|| function(self.argument)).map_err(|panic| format!("it panicked: {panic}"))?;
        KEPT.set(Some(kept));
        IS_SET.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Drops what the set-up has returned, before the process exits. Called by the thread that has run it.
pub(crate) fn end() {
    let kept = KEPT.take();
    // A panic has been printed, and the process exits anyway.
    drop(panics::caught(|| drop(kept)));
}
