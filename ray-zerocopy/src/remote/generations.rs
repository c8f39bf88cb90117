//! The generations of a wrapper: the program that its calls run on, which a swap replaces.
//!
//! Clones of a wrapper share their generations. A call takes the current one when it is made, and keeps
//! it: so a swap does not touch calls that are queued or running, and a generation ends with its last
//! call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::program::Program;
use crate::os::sync::{Mutex, MutexGuard};

/// The program of a wrapper's calls.
pub(crate) struct Generations {
    live: Mutex<Live>,
    /// Number of calls, by which they are divided between two generations.
    calls: AtomicU64,
    /// Held during a swap: a second one begins when the first has ended.
    swapping: Mutex<()>,
}

struct Live {
    current: Arc<Program>,
    /// A generation that gets a share of the calls.
    canary: Option<Canary>,
}

struct Canary {
    program: Arc<Program>,
    /// The share, from 0 to 1.
    share: f64,
}

/// The fraction of the golden ratio, as a part of 2^64. Its multiples are spread evenly, so that each
/// run of calls has its share of the canary.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Generations {
    pub(crate) fn new(program: Arc<Program>) -> Arc<Self> {
        let live = Mutex::new(Live { current: program, canary: None });
        Arc::new(Self { live, calls: AtomicU64::new(0), swapping: Mutex::default() })
    }

    /// The generation that calls run on.
    pub(crate) fn current(&self) -> Arc<Program> {
        Arc::clone(&self.live.lock().current)
    }

    /// The generation of a new call: the current one, or that which gets a share.
    pub(crate) fn of_call(&self) -> Arc<Program> {
        let live = self.live.lock();
        match &live.canary {
            Some(canary) if self.is_chosen(canary.share) => Arc::clone(&canary.program),
            _ => Arc::clone(&live.current),
        }
    }

    fn is_chosen(&self, share: f64) -> bool {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        // Exact enough: the share of 2^64 calls.
        (call.wrapping_mul(GOLDEN) as f64) < share * u64::MAX as f64
    }

    /// Begins a swap. Waits for one that runs.
    pub(super) fn begin_swap(&self) -> MutexGuard<'_, ()> {
        self.swapping.lock()
    }

    /// Makes a program the current one. Returns its predecessor. Ends the share of another generation if
    /// it is of this program.
    pub(super) fn replace(&self, program: Arc<Program>) -> Arc<Program> {
        let mut live = self.live.lock();
        let promoted = live.canary.take_if(|canary| Arc::ptr_eq(&canary.program, &program));
        let before = std::mem::replace(&mut live.current, program);
        drop(live);
        // May run user code.
        drop(promoted);
        before
    }

    /// Gives a program a share of the calls. Returns `false` if another one has a share.
    pub(super) fn begin_canary(&self, program: &Arc<Program>, share: f64) -> bool {
        let mut live = self.live.lock();
        let is_free = live.canary.is_none();
        if is_free {
            live.canary = Some(Canary { program: Arc::clone(program), share });
        }
        is_free
    }

    /// Ends the share of a program.
    pub(super) fn end_canary(&self, program: &Arc<Program>) {
        let ended = self.live.lock().canary.take_if(|canary| Arc::ptr_eq(&canary.program, program));
        drop(ended);
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
