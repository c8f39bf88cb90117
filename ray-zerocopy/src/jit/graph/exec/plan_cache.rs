//! An LRU cache of execution plans, by the sizes of the symbols.

/// Maximum number of plans.
const MOST: usize = 32;
/// Maximum memory of the plans in bytes, per graph and worker.
const MOST_BYTES: usize = 16 << 20;

/// Plans in order of their last use, most recent first. If they are too many or too large, the
/// least recently used are evicted. The most recent one always stays, whatever its size.
pub(super) struct PlanCache<T>(Vec<CachedPlan<T>>);

struct CachedPlan<T> {
    sizes: Vec<usize>,
    bytes: usize,
    plan: T,
}

impl<T> PlanCache<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Moves the plan for these sizes to the front. Returns `false` if there is none.
    pub(super) fn promote(&mut self, sizes: &[usize]) -> bool {
        let found = self.0.iter().position(|entry| entry.sizes == sizes);
        if let Some(at) = found {
            self.0[..=at].rotate_right(1);
        }
        found.is_some()
    }

    /// Inserts a plan at the front. `bytes` is its approximate memory use.
    pub(super) fn add(&mut self, sizes: &[usize], plan: T, bytes: usize) {
        self.0.insert(0, CachedPlan { sizes: sizes.to_vec(), bytes, plan });
        let mut sum = 0_usize;
        let fits = |entry: &&CachedPlan<T>| {
            sum = sum.saturating_add(entry.bytes);
            sum <= MOST_BYTES
        };
        let fitting = self.0.iter().take(MOST).take_while(fits).count();
        self.0.truncate(fitting.max(1));
    }

    /// Returns the most recently used plan.
    pub(super) fn front(&self) -> Option<&T> {
        self.0.first().map(|entry| &entry.plan)
    }

    /// Iterates over the plans, the most recently used one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|entry| &entry.plan)
    }

    /// As [`iter`](Self::iter), for changes.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|entry| &mut entry.plan)
    }
}

#[cfg(test)]
mod tests {
    use super::MOST;
    use super::MOST_BYTES;
    use super::PlanCache;

    fn cached(cache: &PlanCache<usize>) -> Vec<usize> {
        cache.0.iter().map(|entry| entry.plan).collect()
    }

    #[test]
    fn least_recently_used_plan_is_evicted() {
        let mut cache = PlanCache::new();
        for size in 0..MOST {
            cache.add(&[size], size, 1);
        }
        assert!(cache.promote(&[0]), "the oldest is still there");
        assert_eq!(cache.front(), Some(&0));
        cache.add(&[MOST], MOST, 1);
        assert!(!cache.promote(&[1]) && cache.promote(&[0]) && cache.promote(&[2]));
        assert_eq!(cached(&cache).len(), MOST);
    }

    #[test]
    fn large_plans_are_evicted_except_the_newest() {
        let mut cache = PlanCache::new();
        for size in 0..5 {
            cache.add(&[size], size, MOST_BYTES / 3);
        }
        assert_eq!(cached(&cache), [4, 3, 2]);
        cache.add(&[9], 9, 2 * MOST_BYTES);
        assert_eq!(cached(&cache), [9]);
        cache.add(&[1], 1, usize::MAX);
        assert_eq!(cached(&cache), [1]);
        cache.add(&[2], 2, 0);
        assert_eq!(cached(&cache), [2]);
    }
}
