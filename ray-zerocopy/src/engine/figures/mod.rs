//! Figures of calls and workers: counts, times and batch sizes, kept where a call changes its state.
//!
//! A call is counted when its caller is made, when it is sent to a worker, and when its caller gets the
//! answer ([`Waiter`](crate::engine::call::waiter::Waiter)): all engines share these three places. Each
//! figure is kept twice: in this process, for status reports, and in the recorder of the crate `metrics`
//! that the program has installed.
//!
//! Nothing is measured before [`turn_on`]: a call then costs one relaxed load and a branch.
//!
//! | file | what |
//! | --- | --- |
//! | `outcome` | how a call has ended, as a label |
//! | `histogram` | a histogram of times, without a lock |
//! | `method` | the figures of one method of a program |
//! | `recorded` | the same figures in the recorder of the crate `metrics` |
//! | `names` | names, units and help texts of all metrics |
//! | `append_list` | a list that only grows, and is read without a lock |
//! | `workers` | starts and ends of workers |

mod append_list;
pub(crate) mod histogram;
pub(crate) mod method;
pub(crate) mod names;
pub(crate) mod outcome;
mod recorded;
pub(crate) mod workers;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// How often the measurement was turned on. 0 while it is off.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Begins to measure, with the recorder that is installed now. May be repeated after another one was
/// installed.
pub(crate) fn turn_on() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

/// Returns `true` if calls are measured.
pub(crate) fn is_on() -> bool {
    EPOCH.load(Ordering::Relaxed) != 0
}

/// The time at which a call is made, if calls are measured.
pub(crate) fn now_if_on() -> Option<Instant> {
    is_on().then(Instant::now)
}

fn epoch() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}
