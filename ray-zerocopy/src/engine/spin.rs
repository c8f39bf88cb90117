//! Short waits that do not sleep.
//!
//! The kernel takes longer to wake a sleeping thread than a small call takes. So a thread that
//! expects an event very soon checks for it in a loop first, and sleeps only if it does not come.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest time for which a thread spins: the order of one wake-up. A call that takes longer loses
/// nothing that could be measured.
const LIMIT: Duration = Duration::from_micros(20);
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
    let begun = Instant::now();
    loop {
        if has_happened() {
            return true;
        }
        if begun.elapsed() > LIMIT || spinners() == 0 {
            return false;
        }
        std::thread::yield_now();
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

    use super::{SPINNING, spin};

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
}
