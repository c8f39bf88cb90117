//! Memory policies: huge pages, prefaulting and locking of an arena's mappings in one process. Replicas are
//! made by `arena::replicas`.
//!
//! Policies are best effort. A refusal of the kernel is not an error, but an [`Obstacle`] in the
//! [`MemoryStatus`]. The figures come from the kernel (`/proc/self/smaps`). This module is
//! independent of the arena's content, and of whether the process is an owner or a worker.

pub(crate) mod policy;
pub(crate) mod status;
// Miri does not support the system calls that the tests make.
#[cfg(not(miri))]
#[cfg(test)]
mod tests;

use crate::os::smaps;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::policy::{HugePages, MemoryPolicy, Replicas};
use self::status::{MemoryStatus, Obstacle, PolicyStatus};
use crate::os::smaps::limit_of_locked;
use crate::os::smaps::{Figures, figures, mapping_of};
use crate::os::sync::Mutex;
use crate::os::sys::advice::{Advice, Pages, WeakPages};
use crate::os::sys::aligned_map::HUGE_PAGE;

/// Attempts to collapse a block whose pages are temporarily in use (`EAGAIN`).
const ATTEMPTS: usize = 4;

/// The mappings of an arena in this process, and the policies applied to them.
pub(crate) struct Regions {
    mappings: Vec<Pages>,
    /// Size in bytes of an arena in an object store, whose pages this process cannot control.
    stored: Option<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asked: MemoryPolicy,
    /// Whether this process creates the huge pages.
    maker: bool,
    /// The obstacles to each policy at the last attempt.
    huge: Vec<Obstacle>,
    prefault: Vec<Obstacle>,
    lock: Vec<Obstacle>,
    took: Duration,
    background: Option<Arc<Background>>,
}

/// A thread that creates huge pages in the background.
#[derive(Default)]
struct Background {
    /// The obstacles. `None` while the thread runs.
    ended: Mutex<Option<Vec<Obstacle>>>,
}

impl Regions {
    pub(crate) fn new(mappings: Vec<Pages>) -> Self {
        Self { mappings, stored: None, state: Mutex::default() }
    }

    /// Marks the arena as one in an object store, of this size.
    pub(crate) fn of_a_store(self, bytes: u64) -> Self {
        Self { stored: Some(bytes), ..self }
    }

    /// Applies a policy to this process's mappings, and creates the huge pages.
    pub(crate) fn apply(&self, memory: MemoryPolicy) -> MemoryStatus {
        self.run(memory, true)
    }

    /// Applies a policy in a process that received the arena. The sending process creates the huge
    /// pages, and this one only maps them.
    pub(crate) fn follow(&self, memory: MemoryPolicy) -> MemoryStatus {
        // The sending process has chosen the copy.
        let memory = MemoryPolicy { replicas: Replicas::One, ..memory };
        if memory == MemoryPolicy::default() { MemoryStatus::default() } else { self.run(memory, false) }
    }

    fn run(&self, memory: MemoryPolicy, maker: bool) -> MemoryStatus {
        let begun = Instant::now();
        let mut state = self.state.lock();
        state.asked = state.asked.and(memory);
        if self.stored.is_some() {
            drop(state);
            return self.outcome();
        }
        match memory.huge_pages {
            HugePages::Off => {}
            when if maker => self.make(&mut state, when),
            // A process may share a pipeline and then load it itself.
            _ if state.maker => {}
            _ => state.huge = self.impossible().unwrap_or_else(|| vec![Obstacle::LeftToOwner]),
        }
        if memory.huge_pages != HugePages::Off {
            self.mappings.iter().for_each(map_huge_pages);
        }
        if memory.prefault {
            state.prefault = self.mappings.iter().fold(Vec::new(), |why, map| add(why, prefault(map)));
        }
        if memory.lock {
            state.lock = self.mappings.iter().fold(Vec::new(), |why, map| add(why, keep(map)));
        }
        state.took += begun.elapsed();
        drop(state);
        self.outcome()
    }

    /// Creates the huge pages, or starts the thread that does.
    fn make(&self, state: &mut State, when: HugePages) {
        let running = state.background.as_ref().is_some_and(|thread| !thread.has_ended());
        if running && when == HugePages::Background {
            return;
        }
        state.maker = true;
        if !running {
            state.background = None;
        }
        state.huge = match self.impossible() {
            Some(why) => why,
            None if when == HugePages::Now => self.mappings.iter().fold(Vec::new(), |why, map| add(why, collapse(map))),
            None => match Background::start(&self.mappings) {
                Ok(thread) => {
                    state.background = Some(thread);
                    Vec::new()
                }
                Err(error) => vec![Obstacle::NoThread { reason: error.to_string() }],
            },
        };
    }

    /// Returns the obstacles if no mapping can have huge pages, otherwise `None`.
    fn impossible(&self) -> Option<Vec<Obstacle>> {
        let why: Option<Vec<_>> = self.mappings.iter().map(|map| blocks(map).err()).collect();
        why.map(|why| add(Vec::new(), why))
    }

    /// Records that replicas have been requested, which are not made here.
    pub(crate) fn ask_for_replicas(&self) {
        let mut state = self.state.lock();
        state.asked = state.asked.replicas(Replicas::PerNumaNode);
    }

    /// Returns what has been requested so far.
    pub(crate) fn asked(&self) -> MemoryPolicy {
        self.state.lock().asked
    }

    /// Returns `true` if the arena is in an object store.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// Returns the status of all policies requested so far, without replicas, from the kernel's current figures.
    pub(crate) fn outcome(&self) -> MemoryStatus {
        let state = self.state.lock();
        if state.asked == MemoryPolicy::default() {
            return MemoryStatus::default();
        }
        if let Some(of) = self.stored {
            let answer = |asked: bool| {
                if asked {
                    PolicyStatus::NotApplied { of, why: vec![Obstacle::InStore] }
                } else {
                    PolicyStatus::NotAsked
                }
            };
            let huge_pages = answer(state.asked.huge_pages != HugePages::Off);
            let (prefault, lock) = (answer(state.asked.prefault), answer(state.asked.lock));
            let replicas = answer(state.asked.replicas != Replicas::One);
            return MemoryStatus { huge_pages, prefault, lock, replicas, ..MemoryStatus::default() };
        }
        let len = |map: &Pages| map.addresses().len() as u64;
        let sum = |of: &dyn Fn(&Pages) -> u64| self.mappings.iter().map(of).sum::<u64>();
        let (all, whole) = (sum(&len), sum(&|map| len(map) / HUGE_PAGE as u64 * HUGE_PAGE as u64));
        // Read before the figures: a thread that ends in between is reported as in progress, or, if
        // the figures are complete, as applied.
        let thread = state.background.as_ref().map(|thread| thread.ended.lock().clone());
        let figures = self.figures();
        let bytes = |of: fn(&Figures) -> u64| match &figures {
            Ok(figures) => Ok(figures.iter().zip(&self.mappings).map(|(found, map)| of(found).min(len(map))).sum()),
            Err(reason) => Err(reason.clone()),
        };
        let mut outcome = MemoryStatus { took: state.took, ..MemoryStatus::default() };
        if state.asked.huge_pages != HugePages::Off {
            let underway = matches!(thread, Some(None));
            let why = thread.flatten().into_iter().fold(state.huge.clone(), add);
            outcome.huge_pages = match (whole, underway, bytes(|found| found.huge)) {
                (0, ..) => PolicyStatus::NotApplied { of: 0, why: vec![Obstacle::Smaller { bytes: all }] },
                (of, true, Ok(bytes)) if bytes < of => PolicyStatus::InProgress { bytes, of },
                (of, _, bytes) => PolicyStatus::new(bytes, of, why),
            };
        }
        if state.asked.prefault {
            outcome.prefault = PolicyStatus::new(bytes(|found| found.rss), all, state.prefault.clone());
        }
        if state.asked.lock {
            outcome.lock = PolicyStatus::new(bytes(|found| found.locked), all, state.lock.clone());
        }
        outcome
    }

    /// Reads the kernel's figures for each mapping of this process.
    fn figures(&self) -> Result<Vec<Figures>, String> {
        const PATH: &str = "/proc/self/smaps";
        let text = std::fs::read_to_string(PATH).map_err(|error| format!("{PATH} cannot be read: {error}"))?;
        let ours = |map: &Pages| {
            let ours = map.addresses();
            figures(&text, |line| mapping_of(line).is_some_and(|found| ours.contains(&found.start)))
        };
        Ok(self.mappings.iter().map(ours).collect())
    }
}

impl Background {
    /// Starts the thread. It ends when its work is done, or when the last of the mappings is
    /// dropped: it only holds weak references.
    fn start(mappings: &[Pages]) -> io::Result<Arc<Self>> {
        let mappings: Vec<WeakPages> = mappings.iter().map(Pages::downgrade).collect();
        let this = Arc::new(Self::default());
        let thread = Arc::clone(&this);
        std::thread::Builder::new().name("rzc huge pages".to_owned()).spawn(move || {
            let work = || mappings.iter().fold(Vec::new(), |why, map| add(why, collapse_while_there(map)));
            // A panic is caught so that `ended` is set. Otherwise the status would be "in progress" for
            // ever.
            let why = catch_unwind(AssertUnwindSafe(work));
            let panicked = |_| vec![Obstacle::NoThread { reason: "it panicked".to_owned() }];
            *thread.ended.lock() = Some(why.unwrap_or_else(panicked));
        })?;
        Ok(this)
    }

    fn has_ended(&self) -> bool {
        self.ended.lock().is_some()
    }
}

/// Collapses every whole block of a mapping into a huge page, and returns the obstacles.
fn collapse(map: &Pages) -> Vec<Obstacle> {
    match blocks(map) {
        Ok(blocks) => blocks.fold(Vec::new(), |why, block| add(why, collapse_block(map, block).err())),
        Err(why) => vec![why],
    }
}

/// Does the same as [`collapse`], but only as long as the mapping has another owner.
fn collapse_while_there(map: &WeakPages) -> Vec<Obstacle> {
    match map.upgrade().map(|map| blocks(&map)) {
        None => Vec::new(),
        Some(Err(why)) => vec![why],
        Some(Ok(mut blocks)) => {
            let step = |why, block| Some(add(why, collapse_block(&map.upgrade()?, block).err()));
            blocks.try_fold(Vec::new(), step).unwrap_or_default()
        }
    }
}

/// Returns the offsets of the whole blocks of a mapping. The rest at its end is smaller than a huge
/// page, and keeps its small pages.
fn blocks(map: &Pages) -> Result<impl Iterator<Item = usize> + use<>, Obstacle> {
    let len = map.addresses().len();
    match smaps::huge_page() {
        _ if len < HUGE_PAGE => Err(Obstacle::Smaller { bytes: len as u64 }),
        _ if !map.is_aligned() => Err(Obstacle::NotAligned),
        _ if !Advice::Collapse.is_known() => {
            Err(Obstacle::Unsupported { call: "madvise(MADV_COLLAPSE)".to_owned(), since: "6.1".to_owned() })
        }
        Some(bytes) if bytes != HUGE_PAGE as u64 => Err(Obstacle::OtherSize { bytes }),
        _ => Ok((0..len / HUGE_PAGE).map(|block| block * HUGE_PAGE)),
    }
}

fn collapse_block(map: &Pages, block: usize) -> Result<(), Obstacle> {
    let mut collapsed = Ok(());
    for _ in 0..ATTEMPTS {
        collapsed = map.advise(block, HUGE_PAGE, Advice::Collapse);
        match &collapsed {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            _ => break,
        }
    }
    collapsed.map_err(|error| Obstacle::refused("madvise(MADV_COLLAPSE)", &error))
}

/// Populates one page of each block, which maps the whole block if it is a huge page already.
///
/// The figures show whether it was one, so errors are ignored: a kernel without this advice does
/// not have `MADV_COLLAPSE` either.
fn map_huge_pages(map: &Pages) {
    let len = map.addresses().len();
    for block in (0..len / HUGE_PAGE).map(|block| block * HUGE_PAGE) {
        if map.advise(block, 1, Advice::Populate).is_err() {
            break;
        }
    }
}

fn prefault(map: &Pages) -> Option<Obstacle> {
    const CALL: &str = "madvise(MADV_POPULATE_READ)";
    if !Advice::Populate.is_known() {
        return Some(Obstacle::Unsupported { call: CALL.to_owned(), since: "5.14".to_owned() });
    }
    let populated = map.advise(0, map.addresses().len(), Advice::Populate);
    populated.err().map(|error| Obstacle::refused(CALL, &error))
}

fn keep(map: &Pages) -> Option<Obstacle> {
    let error = map.lock().err()?;
    let needed = map.addresses().len() as u64;
    match limit_of_locked() {
        Some((limit, locked)) if locked.saturating_add(needed) > limit => {
            Some(Obstacle::MemlockLimit { limit, locked, needed })
        }
        _ => Some(Obstacle::refused("mlock", &error)),
    }
}

/// Adds obstacles to a list that does not contain them yet.
fn add(mut why: Vec<Obstacle>, more: impl IntoIterator<Item = Obstacle>) -> Vec<Obstacle> {
    for reason in more {
        if !why.contains(&reason) {
            why.push(reason);
        }
    }
    why
}
