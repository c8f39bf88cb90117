//! How many calls a bundle has: it takes about half a millisecond, and its arguments are small.

use std::time::Duration;

/// Time that a worker should need for a bundle.
const BUDGET: Duration = Duration::from_micros(500);
/// Number of calls in a bundle.
const MAX_CALLS: usize = 64;
/// Bytes of the arguments of all calls, and of one. Larger messages gain nothing.
const MAX_BYTES: usize = 32 * 1024;
const MAX_CALL_BYTES: usize = 4 * 1024;

/// Time that a call takes, by the last calls. A longer time counts at once, a shorter one by half.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CallTime(Option<Duration>);

impl CallTime {
    pub(crate) fn record(&mut self, taken: Duration) {
        self.0 = Some(self.0.map_or(taken, |before| taken.max((before + taken) / 2)));
    }
}

/// What a bundle has room for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BundleRoom {
    calls: usize,
    bytes: usize,
    time: Duration,
}

impl BundleRoom {
    /// Creates the room of a bundle of at most `share` calls.
    pub(crate) fn new(share: usize) -> Self {
        Self { calls: share.min(MAX_CALLS), bytes: MAX_BYTES, time: BUDGET }
    }

    /// Takes the room of a call with so many bytes of arguments. Returns `false` if there is too little. A
    /// call whose time is unknown has no room in a bundle.
    pub(crate) fn take(&mut self, bytes: usize, CallTime(time): CallTime) -> bool {
        let left = time.filter(|_| bytes <= MAX_CALL_BYTES).and_then(|time| {
            let calls = self.calls.checked_sub(1)?;
            Some(Self { calls, bytes: self.bytes.checked_sub(bytes)?, time: self.time.checked_sub(time)? })
        });
        let fits = left.is_some();
        *self = left.unwrap_or(*self);
        fits
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BundleRoom, CallTime};

    fn time(micros: u64) -> CallTime {
        CallTime(Some(Duration::from_micros(micros)))
    }

    /// How many calls of this size and time have room.
    fn fitting(mut room: BundleRoom, bytes: usize, time: CallTime) -> usize {
        (0..1000).take_while(|_| room.take(bytes, time)).count()
    }

    #[test]
    fn every_limit_counts() {
        assert_eq!(fitting(BundleRoom::new(1000), 10, time(0)), 64, "calls");
        assert_eq!(fitting(BundleRoom::new(7), 10, time(0)), 7, "the share");
        assert_eq!(fitting(BundleRoom::new(0), 10, time(0)), 0, "the share");
        assert_eq!(fitting(BundleRoom::new(1000), 4096, time(0)), 8, "bytes of all");
        assert_eq!(fitting(BundleRoom::new(1000), 4097, time(0)), 0, "bytes of one");
        assert_eq!(fitting(BundleRoom::new(1000), 10, time(40)), 12, "time");
        assert_eq!(fitting(BundleRoom::new(1000), 10, time(501)), 0, "time of one");
        assert_eq!(fitting(BundleRoom::new(1000), 10, CallTime::default()), 0, "an unknown time");
    }

    #[test]
    fn call_without_room_takes_none() {
        let mut room = BundleRoom::new(2);
        assert!(room.take(1, time(300)));
        assert!(!room.take(1, time(300)));
        assert!(room.take(1, time(200)));
        assert!(!room.take(1, time(0)));
    }

    #[test]
    fn slow_calls_count_at_once() {
        let mut times = CallTime::default();
        let mut record = |micros| {
            times.record(Duration::from_micros(micros));
            fitting(BundleRoom::new(64), 10, times)
        };
        assert_eq!(record(10), 50);
        assert_eq!(record(1000), 0);
        assert_eq!(record(10), 0, "the slow one still counts");
        assert!((0..10).map(|_| record(10)).is_sorted() && record(10) > 40);
        assert_eq!(record(100), 5, "at once");
    }
}
