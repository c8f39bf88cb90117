//! Short waits that do not sleep.
//!
//! The kernel takes longer to wake a sleeping thread than a small call takes. So a thread that
//! expects an event very soon checks for it in a loop first, and sleeps only if it does not come.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest time for which a thread spins: the order of one wake-up. A call that takes longer loses
/// nothing that could be measured.
const LIMIT: Duration = Duration::from_micros(20);
/// Longest time for which a poll spins: that in which a sleeping worker is woken and runs a small call. An executor
/// takes as long to be woken itself, twice.
const SOON: Duration = Duration::from_micros(100);
/// Number of polls that may spin in vain before most of the following ones do not.
const MISSES: u32 = 4;
/// Of those, one in this many does.
const PROBE: u32 = 32;
/// Number of checks between two looks at the clock.
const CHECKS: u32 = 64;

/// Number of threads that spin now.
static SPINNING: AtomicUsize = AtomicUsize::new(0);

/// Spins until `has_happened` returns `true`, for a short time at most. Returns the last result. For an
/// event in the memory of this process.
///
/// At most one thread for each core spins at a time, so that spinning threads do not keep the one
/// that they wait for from running.
pub(crate) fn spin(has_happened: impl Fn() -> bool) -> bool {
    if has_happened() {
        return true;
    }
    if SPINNING.fetch_add(1, Ordering::Relaxed) >= spinners() {
        SPINNING.fetch_sub(1, Ordering::Relaxed);
        return false;
    }
    let begun = Instant::now();
    let happened = loop {
        if (0..CHECKS).any(|_| {
            std::hint::spin_loop();
            has_happened()
        }) {
            break true;
        }
        if begun.elapsed() > LIMIT {
            break false;
        }
    };
    SPINNING.fetch_sub(1, Ordering::Relaxed);
    happened
}

/// Like [`spin`], for an event that only a system call shows. Between two of them, other threads that
/// need the core get it.
pub(crate) fn spin_and_yield(has_happened: impl Fn() -> bool) -> bool {
    spin_and_yield_for(LIMIT, has_happened)
}

fn spin_and_yield_for(limit: Duration, has_happened: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if has_happened() {
            return true;
        }
        if begun.elapsed() > limit || spinners() == 0 {
            return false;
        }
        std::thread::yield_now();
    }
}

/// Spins in polls, as long as that pays off: not for a pool whose calls take longer.
#[derive(Debug, Default)]
pub(crate) struct SpinningPolls {
    /// Polls since the last one for which the event came in time.
    misses: AtomicU32,
}

impl SpinningPolls {
    /// Like [`spin_and_yield`], for a caller that must not block: for the result of a call that is alone.
    pub(crate) fn spin(&self, has_happened: impl Fn() -> bool) -> bool {
        // Polls of several threads may overwrite each other's count, which changes little.
        let misses = self.misses.load(Ordering::Relaxed);
        let spins = misses < MISSES || misses.is_multiple_of(PROBE);
        let happened = if spins { spin_and_yield_for(SOON, has_happened) } else { has_happened() };
        self.misses.store(if happened { 0 } else { misses.wrapping_add(1) }, Ordering::Relaxed);
        happened
    }
}

/// Number of threads that may spin at the same time.
fn spinners() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    match CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, Into::into)) {
        // The event that a thread waits for needs the only core.
        1 => 0,
        cores => *cores,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use std::cell::Cell;

    use super::{MISSES, PROBE, SPINNING, SpinningPolls, spin};

    #[test]
    fn spinning_ends_with_the_event_or_without_it() {
        assert!(spin(|| true));
        assert!(!spin(|| false));
        let happened = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| happened.store(true, Ordering::Release));
            while !spin(|| happened.load(Ordering::Acquire)) {
                std::thread::yield_now();
            }
        });
        // Other tests of this process may spin as well, but not this many.
        assert!(SPINNING.load(Ordering::Relaxed) < 1000);
    }
    #[test]
    fn polls_spin_as_long_as_that_pays_off() {
        let (polls, checks) = (SpinningPolls::default(), Cell::new(0));
        let never = || {
            checks.set(checks.get() + 1);
            false
        };
        let spins = || {
            checks.set(0);
            assert!(!polls.spin(never));
            checks.get() > 1
        };
        // A machine with one core never spins.
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1) {
            eprintln!("skipped: this machine has one core");
            return;
        }
        assert!((0..MISSES).all(|_| spins()));
        assert_eq!((MISSES..=4 * PROBE).filter(|_| spins()).count(), 4);
        assert!(polls.spin(|| true));
        assert!(spins());
    }
}
