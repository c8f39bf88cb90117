//! The size of a pool: a number of workers, or the range in which it grows and shrinks.

use std::fmt;
use std::ops::RangeInclusive;

/// Number of workers of a pool: fixed, or a range in which the pool grows and shrinks.
///
/// A number is a pool of that size, and 0 counts as 1. A range is an elastic pool, which starts with the
/// first number of workers: with `0..=8`, with none until the first call.
///
/// ```
/// use ray_zerocopy::engine::PoolSize;
///
/// assert_eq!(PoolSize::from(4).to_string(), "4 workers");
/// assert_eq!(PoolSize::from(1..=8).to_string(), "1 to 8 workers");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PoolSize {
    /// Number of workers that the pool has at least.
    pub min: usize,
    /// Number of workers that the pool has at most.
    pub max: usize,
}

impl PoolSize {
    /// A pool that neither grows nor shrinks.
    pub(crate) fn fixed(workers: usize) -> Self {
        Self { min: workers.max(1), max: workers.max(1) }
    }

    /// Returns `true` if the pool may grow and shrink.
    pub(crate) fn is_elastic(self) -> bool {
        self.min < self.max
    }

    /// Checks that a pool can have this size. The error is the reason why it cannot.
    pub(crate) fn check(self) -> Result<(), String> {
        let Self { min, max } = self;
        if min > max {
            return Err(format!(
                "the range of workers {min}..={max} is empty; write the smaller number first, as in {max}..={min}"
            ));
        }
        if max == 0 {
            return Err("the range of workers 0..=0 has no worker; let it end with 1 or more, as in 0..=1".to_owned());
        }
        Ok(())
    }
}

impl From<usize> for PoolSize {
    fn from(workers: usize) -> Self {
        Self::fixed(workers)
    }
}

impl From<RangeInclusive<usize>> for PoolSize {
    fn from(workers: RangeInclusive<usize>) -> Self {
        Self { min: *workers.start(), max: *workers.end() }
    }
}

impl fmt::Display for PoolSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { min: 1, max: 1 } => f.write_str("1 worker"),
            Self { min, max } if min == max => write!(f, "{min} workers"),
            Self { min, max } => write!(f, "{min} to {max} workers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PoolSize;

    #[test]
    fn number_is_a_fixed_size_of_at_least_one() {
        assert_eq!(PoolSize::from(0), PoolSize { min: 1, max: 1 });
        assert!(!PoolSize::from(3).is_elastic());
        assert!(PoolSize::from(0..=1).is_elastic());
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "it is what a user may write by mistake")]
    fn empty_range_is_refused() {
        for (range, hint) in [(3..=1, "as in 1..=3"), (0..=0, "as in 0..=1")] {
            let reason = PoolSize::from(range.clone()).check().unwrap_err();
            assert!(reason.contains(&format!("{}..={}", range.start(), range.end())), "{reason}");
            assert!(reason.ends_with(hint), "{reason}");
        }
        assert_eq!(PoolSize::from(2..=2).check(), Ok(()));
    }
}
