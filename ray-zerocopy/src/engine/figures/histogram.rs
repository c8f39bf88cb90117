//! A histogram of times, without a lock: four buckets for each doubling of the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The shortest time that has a bucket of its own is 2 to the power of this, in nanoseconds.
const FIRST: u32 = 8;
/// Buckets of each doubling.
const PARTS: u32 = 4;
/// Up to 2^44 nanoseconds, which are almost five hours.
const BUCKETS: usize = ((44 - FIRST) * PARTS) as usize;

/// A histogram that many threads add to.
#[derive(Debug)]
pub(crate) struct AtomicHistogram {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Default for AtomicHistogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), nanos: AtomicU64::new(0) }
    }
}

/// The bucket of a time. The last one has all longer times, too.
fn bucket(nanos: u64) -> usize {
    let Some(doublings) = nanos.checked_ilog2().and_then(|log| log.checked_sub(FIRST)) else { return 0 };
    let part = (nanos >> (doublings + FIRST - 2)) & 3;
    let bucket = (doublings * PARTS) as usize + usize::try_from(part).unwrap_or(0);
    bucket.min(BUCKETS - 1)
}

/// The end of a bucket, which is not part of it.
fn end(bucket: usize) -> u64 {
    let (doublings, part) = (bucket / PARTS as usize, bucket % PARTS as usize);
    (5 + part as u64) << (doublings as u32 + FIRST - 2)
}

impl AtomicHistogram {
    pub(crate) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The histogram as data. Times that are added meanwhile may be missing.
    pub(crate) fn read(&self) -> Times {
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        let buckets = counts.filter(|(_, count)| *count > 0);
        let buckets = buckets.map(|(bucket, count)| TimeBucket { below_nanos: end(bucket), count }).collect();
        Times { buckets, sum_nanos: self.nanos.load(Ordering::Relaxed) }
    }
}

/// A histogram of times. Each bucket is at most a quarter wider than its shortest time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Times {
    /// The buckets that are not empty, the shortest times first.
    pub buckets: Vec<TimeBucket>,
    /// The sum of all times in nanoseconds.
    pub sum_nanos: u64,
}

/// Number of times in a range. It begins at the end of the next shorter bucket, which may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TimeBucket {
    /// The end of the range in nanoseconds.
    pub below_nanos: u64,
    /// Number of times in it.
    pub count: u64,
}

impl Times {
    /// Number of times.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }

    /// The mean. `None` if there is no time.
    pub fn mean(&self) -> Option<Duration> {
        self.sum_nanos.checked_div(self.count()).map(Duration::from_nanos)
    }

    /// An upper bound of the time that a fraction of all times does not exceed, from 0 to 1: 0.99 for the
    /// 99th percentile. `None` if there is no time.
    pub fn quantile(&self, fraction: f64) -> Option<Duration> {
        let rank = (fraction.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let has_rank = |bucket: &&TimeBucket| {
            seen += bucket.count;
            seen >= rank
        };
        self.buckets.iter().find(has_rank).map(|bucket| Duration::from_nanos(bucket.below_nanos))
    }

    /// The times that were added after `before`, an earlier state of the same histogram. All of them if
    /// it is not one.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let earlier =
            |end: u64| before.buckets.iter().find(|bucket| bucket.below_nanos == end).map_or(0, |old| old.count);
        let left =
            |bucket: &TimeBucket| Some((bucket.below_nanos, bucket.count.checked_sub(earlier(bucket.below_nanos))?));
        let left: Option<Vec<_>> = self.buckets.iter().map(left).collect();
        match (left, self.sum_nanos.checked_sub(before.sum_nanos)) {
            (Some(left), Some(sum_nanos)) => {
                let buckets = left.into_iter().filter(|(_, count)| *count > 0);
                let buckets = buckets.map(|(below_nanos, count)| TimeBucket { below_nanos, count }).collect();
                Self { buckets, sum_nanos }
            }
            _ => self.clone(),
        }
    }

    /// Adds the times of another histogram.
    pub fn add(&mut self, other: &Self) {
        for bucket in &other.buckets {
            match self.buckets.binary_search_by_key(&bucket.below_nanos, |own| own.below_nanos) {
                Ok(at) => self.buckets[at].count += bucket.count,
                Err(at) => self.buckets.insert(at, *bucket),
            }
        }
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{AtomicHistogram, BUCKETS, Times, bucket, end};

    #[test]
    fn buckets_are_narrow_and_leave_no_gap() {
        assert_eq!((bucket(0), bucket(255), bucket(256), bucket(u64::MAX)), (0, 0, 0, BUCKETS - 1));
        for number in 0..BUCKETS - 1 {
            assert_eq!((bucket(end(number) - 1), bucket(end(number))), (number, number + 1));
            assert!(end(number + 1) * 4 <= end(number) * 5);
        }
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        let histogram = AtomicHistogram::default();
        assert_eq!((histogram.read().quantile(0.5), histogram.read().mean()), (None, None));
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let times = histogram.read();
        assert_eq!(times.count(), 1000);
        for (fraction, exact) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1000)] {
            let found = times.quantile(fraction).unwrap();
            let exact = Duration::from_micros(exact);
            assert!(found >= exact && found <= exact * 5 / 4, "{fraction}: {found:?}");
        }
        assert_eq!(times.mean(), Some(Duration::from_nanos(500_500)));
    }

    #[test]
    fn differences_and_sums_fit_together() {
        let histogram = AtomicHistogram::default();
        histogram.record(Duration::from_micros(3));
        let before = histogram.read();
        histogram.record(Duration::from_millis(3));
        histogram.record(Duration::from_micros(3));
        let all = histogram.read();
        let since = all.since(&before);
        assert_eq!((since.count(), since.buckets.len()), (2, 2));
        let mut sum = since;
        sum.add(&before);
        assert_eq!(sum, all);
        // The service was started again.
        assert_eq!(before.since(&all), before);
        assert_eq!(all.since(&Times::default()), all);
    }
}
