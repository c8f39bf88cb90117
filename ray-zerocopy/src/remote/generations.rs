//! The generations of a wrapper: the program that its calls run on, which a swap replaces.
//!
//! Clones of a wrapper share their generations. A call takes the current one when it is made, and keeps
//! it: so a swap does not touch calls that are queued or running, and a generation ends with its last
//! call.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use super::batch_method::Batchers;
use crate::engine::blocking::blocking;
use crate::engine::program::Program;
use crate::engine::tally::Generation;
use crate::error::swap::SwapError;
use crate::os::sync::{Condvar, Mutex, MutexGuard};
use crate::report::GenerationReport;

/// The program of a wrapper's calls.
pub(crate) struct Generations {
    live: Mutex<Live>,
    /// Number of calls, by which they are divided between two generations.
    calls: AtomicU64,
    /// Number of calls that have their generation, and are not in the engine's queue yet.
    entering: AtomicUsize,
    /// Held during a swap: a second one begins when the first has ended.
    swapping: Mutex<()>,
    /// The thread that swaps. It runs user code, which must not begin a second swap.
    swapper: Mutex<Option<ThreadId>>,
    /// Notified when new calls may go on.
    resumed: Condvar,
    /// The batches of all clones of the wrapper.
    batchers: Mutex<Vec<Weak<Batchers>>>,
}

struct Live {
    current: Arc<Program>,
    /// Whether new calls wait, because the state of actors moves to the next generation.
    is_paused: bool,
    /// A generation that gets a share of the calls.
    canary: Option<Canary>,
}

struct Canary {
    program: Arc<Program>,
    /// The share, from 0 to 1.
    share: f64,
}

/// Interval at which a swap looks whether the calls before it are in the engine's queue.
const LOOK: Duration = Duration::from_micros(100);

/// The fraction of the golden ratio, as a part of 2^64. Its multiples are spread evenly, so that each
/// run of calls has its share of the canary.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Generations {
    pub(crate) fn new(program: Arc<Program>) -> Arc<Self> {
        let live = Mutex::new(Live { current: program, is_paused: false, canary: None });
        let (swapping, swapper, resumed, batchers) = Default::default();
        let (calls, entering) = (AtomicU64::new(0), AtomicUsize::new(0));
        Arc::new(Self { live, calls, entering, swapping, swapper, resumed, batchers })
    }

    /// The generation that calls run on.
    pub(crate) fn current(&self) -> Arc<Program> {
        Arc::clone(&self.live.lock().current)
    }

    /// The generation of a new call: the current one, or that which gets a share. The value is kept until
    /// the call is in the engine's queue.
    pub(crate) fn of_call(&self) -> Entering<'_> {
        let mut live = self.live.lock();
        // The next swap may have begun before this thread has the lock again.
        while live.is_paused {
            drop(live);
            blocking(|| self.wait_until_resumed());
            live = self.live.lock();
        }
        let program = match &live.canary {
            Some(canary) if self.is_chosen(canary.share) => Arc::clone(&canary.program),
            _ => Arc::clone(&live.current),
        };
        self.entering.fetch_add(1, Ordering::AcqRel);
        Entering { program, generations: self }
    }

    fn wait_until_resumed(&self) {
        let mut live = self.live.lock();
        while live.is_paused {
            live = self.resumed.wait(live, None);
        }
    }

    fn is_chosen(&self, share: f64) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        // Exact enough: the share of 2^64 calls.
        (call.wrapping_mul(GOLDEN) as f64) < share * u64::MAX as f64
    }

    /// Begins a swap. Waits for one that runs.
    ///
    /// # Errors
    /// If this thread runs one: the user's check of that swap would wait for itself.
    pub(super) fn begin_swap(&self) -> Result<Swapping<'_>, SwapError> {
        let own = std::thread::current().id();
        if *self.swapper.lock() == Some(own) {
            return Err(SwapError::Nested);
        }
        let guard = self.swapping.lock();
        *self.swapper.lock() = Some(own);
        Ok(Swapping { generations: self, _guard: guard })
    }

    /// Returns `true` if new calls may run on a program.
    pub(super) fn is_live(&self, program: &Arc<Program>) -> bool {
        let live = self.live.lock();
        let is_canary = live.canary.as_ref().is_some_and(|canary| Arc::ptr_eq(&canary.program, program));
        is_canary || Arc::ptr_eq(&live.current, program)
    }

    /// The calls of each generation that gets new ones: the current one, and the canary.
    pub(super) fn reports(&self) -> Vec<GenerationReport> {
        let live = self.live.lock();
        let canary = live.canary.as_ref().map(|canary| &canary.program);
        std::iter::once(&live.current).chain(canary).map(|program| GenerationReport::of(program)).collect()
    }

    /// Lets new calls wait until the returned value is dropped. When this returns, the calls before that
    /// are in the engine's queue.
    pub(super) fn pause(&self) -> Paused<'_> {
        self.live.lock().is_paused = true;
        let paused = Paused(self);
        // A call that is about to enter takes microseconds, unless the queue is full.
        while self.entering.load(Ordering::Acquire) > 0 {
            std::thread::sleep(LOOK);
        }
        paused
    }

    /// Makes a program the current one. Returns its predecessor. Ends the share of another generation if
    /// it is of this program.
    pub(super) fn replace(&self, program: Arc<Program>) -> Arc<Program> {
        let mut live = self.live.lock();
        let promoted = live.canary.take_if(|canary| Arc::ptr_eq(&canary.program, &program));
        live.current.tally.set_generation(Generation::Retired);
        program.tally.set_number(live.current.tally.number() + 1);
        program.tally.set_generation(Generation::Current);
        if promoted.is_none() {
            program.tally.reset();
        }
        let before = std::mem::replace(&mut live.current, program);
        drop(live);
        // May run user code.
        drop(promoted);
        before
    }

    /// Remembers the batches of a clone of the wrapper, until they are dropped.
    pub(super) fn watch(&self, batchers: &Arc<Batchers>) {
        let mut all = self.batchers.lock();
        all.retain(|known| known.strong_count() > 0 && known.as_ptr() != Arc::as_ptr(batchers));
        all.push(Arc::downgrade(batchers));
    }

    fn batchers(&self) -> Vec<Arc<Batchers>> {
        self.batchers.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Returns `true` if no call on a program waits for its batch.
    pub(super) fn batches_are_sent(&self, program: &Program) -> bool {
        self.batchers().iter().all(|batchers| batchers.are_sent(program.key))
    }

    /// Forgets the batches of a program that gets no further calls.
    pub(super) fn forget_batches(&self, program: &Program) {
        self.batchers().iter().for_each(|batchers| batchers.forget(program.key));
    }

    /// Gives a program a share of the calls. Returns `false` if another one has a share.
    pub(super) fn begin_canary(&self, program: &Arc<Program>, share: f64) -> bool {
        let mut live = self.live.lock();
        let is_free = live.canary.is_none();
        if is_free {
            program.tally.reset();
            program.tally.set_generation(Generation::Canary);
            live.canary = Some(Canary { program: Arc::clone(program), share });
        }
        is_free
    }

    /// Ends the share of a program. Returns `false` if it has none.
    pub(super) fn end_canary(&self, program: &Arc<Program>) -> bool {
        let ended = self.live.lock().canary.take_if(|canary| Arc::ptr_eq(&canary.program, program));
        if let Some(canary) = &ended {
            canary.program.tally.set_generation(Generation::Retired);
        }
        ended.is_some()
    }
}

/// A swap that runs.
pub(super) struct Swapping<'a> {
    generations: &'a Generations,
    _guard: MutexGuard<'a, ()>,
}

impl Drop for Swapping<'_> {
    fn drop(&mut self) {
        *self.generations.swapper.lock() = None;
    }
}

/// A call that has its generation, and is not in the engine's queue yet.
pub(crate) struct Entering<'a> {
    pub(crate) program: Arc<Program>,
    generations: &'a Generations,
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.generations.entering.fetch_sub(1, Ordering::AcqRel);
    }
}

/// New calls of a wrapper wait as long as this exists.
pub(super) struct Paused<'a>(&'a Generations);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.live.lock().is_paused = false;
        self.0.resumed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::GOLDEN;

    #[test]
    fn share_of_calls_is_even() {
        for share in [0.0, 0.05, 0.5, 1.0] {
            let chosen = |from: u64| {
                (from..from + 1000).filter(|call| (call.wrapping_mul(GOLDEN) as f64) < share * u64::MAX as f64).count()
            };
            for from in [0, 12_345] {
                assert!(chosen(from).abs_diff((share * 1000.0) as usize) <= 5, "{share}: {}", chosen(from));
            }
        }
    }
}
