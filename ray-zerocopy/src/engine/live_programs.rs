//! The programs of this process that run on an engine, for status reports.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::Engine;
use super::program::Program;
use crate::os::per_process::PerProcess;
use crate::os::sync::Mutex;

/// Programs by their keys. A fork has none: it has no workers.
static PROGRAMS: PerProcess<Mutex<BTreeMap<u64, Weak<Program>>>> = PerProcess::new();

/// Number of entries from which on those of dropped programs are looked for.
const PRUNE_AT: usize = 64;

/// Records that a program runs on an engine, unless it has one already.
pub(crate) fn run_on(program: &Arc<Program>, engine: &Arc<dyn Engine>) {
    if program.engine.set(Arc::downgrade(engine)).is_err() {
        // An earlier step of the same wrapper has set it, to the same engine.
        return;
    }
    program.tally.name(program.arena.pipeline(), engine.kind());
    let mut programs = PROGRAMS.get().lock();
    if programs.len() >= PRUNE_AT {
        programs.retain(|_, program| program.strong_count() > 0);
    }
    programs.insert(program.key, Arc::downgrade(program));
}

/// The programs that have not been dropped, the oldest first, and their engines.
pub(crate) fn live_programs() -> Vec<(Arc<Program>, Arc<dyn Engine>)> {
    let programs: Vec<_> = PROGRAMS.get().lock().values().filter_map(Weak::upgrade).collect();
    // Without the lock: dropping a program may run code of its engine.
    let with_engine =
        |program: Arc<Program>| program.engine.get().and_then(Weak::upgrade).map(|engine| (program, engine));
    programs.into_iter().filter_map(with_engine).collect()
}
