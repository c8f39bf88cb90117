//! Sizes that are ready to run.

/// How many are kept.
const MOST: usize = 32;
/// And how many bytes of memory they may take, each in each worker.
const MOST_BYTES: usize = 16 << 20;

/// What is ready for which sizes, the one that was used last in front. The one that was not used for longest goes, when they are too
/// many or too large; the last one stays, however large.
pub(super) struct PlanCache<T>(Vec<PlannedOp<T>>);

struct PlannedOp<T> {
    sizes: Vec<usize>,
    bytes: usize,
    what: T,
}

impl<T> PlanCache<T> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Brings what is ready for these sizes to the front, if anything is.
    pub(super) fn use_again(&mut self, sizes: &[usize]) -> bool {
        let found = self.0.iter().position(|ready| ready.sizes == sizes);
        if let Some(at) = found {
            self.0[..=at].rotate_right(1);
        }
        found.is_some()
    }

    /// Puts something new in front, which takes about so many bytes.
    pub(super) fn add(&mut self, sizes: &[usize], what: T, bytes: usize) {
        self.0.insert(0, PlannedOp { sizes: sizes.to_vec(), bytes, what });
        let mut sum = 0_usize;
        let fits = |ready: &&PlannedOp<T>| {
            sum = sum.saturating_add(ready.bytes);
            sum <= MOST_BYTES
        };
        let fitting = self.0.iter().take(MOST).take_while(fits).count();
        self.0.truncate(fitting.max(1));
    }

    /// What was used or added last.
    pub(super) fn front(&self) -> Option<&T> {
        self.0.first().map(|ready| &ready.what)
    }
}

#[cfg(test)]
mod tests {
    use super::MOST;
    use super::MOST_BYTES;
    use super::PlanCache;

    fn known(kept: &PlanCache<usize>) -> Vec<usize> {
        kept.0.iter().map(|ready| ready.what).collect()
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_goes() {
        let mut kept = PlanCache::new();
        (0..MOST).for_each(|size| kept.add(&[size], size, 1));
        assert!(kept.use_again(&[0]), "the oldest is still there");
        assert_eq!(kept.front(), Some(&0));
        kept.add(&[MOST], MOST, 1);
        assert!(!kept.use_again(&[1]) && kept.use_again(&[0]) && kept.use_again(&[2]));
        assert_eq!(known(&kept).len(), MOST);
    }

    #[test]
    fn large_ones_are_fewer_and_the_last_stays() {
        let mut kept = PlanCache::new();
        (0..5).for_each(|size| kept.add(&[size], size, MOST_BYTES / 3));
        assert_eq!(known(&kept), [4, 3, 2]);
        kept.add(&[9], 9, 2 * MOST_BYTES);
        assert_eq!(known(&kept), [9]);
        kept.add(&[1], 1, usize::MAX);
        assert_eq!(known(&kept), [1]);
        kept.add(&[2], 2, 0);
        assert_eq!(known(&kept), [2]);
    }
}
