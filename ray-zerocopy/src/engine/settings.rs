//! Settings of a worker pool.

use std::path::PathBuf;
use std::time::Duration;

use super::pool_size::PoolSize;
use crate::os::cpu_placement::{self, CpuPlacement, allowed_cores};

/// Settings of a worker pool.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub workers: PoolSize,
    /// Time without a call after which a worker above the least number ends.
    pub idle: Duration,
    /// Bytes of memory that a pool leaves available when it grows.
    pub memory_reserve: u64,
    pub threads: Option<usize>,
    pub queue: usize,
    pub start_timeout: Duration,
    /// Bytes of memory that each worker and its owner may keep for the large messages of one to the other,
    /// which is used again. `None` if it is not set, which is none.
    pub recycled_memory: Option<u64>,
    /// Niceness of the workers, if it is not that of this process.
    pub niceness: Option<i32>,
    pub cores: Cores,
    /// Executable of the workers, if it is not this program.
    pub program: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: PoolSize::fixed(cores()),
            idle: Duration::from_secs(30),
            memory_reserve: 0,
            threads: None,
            queue: 1024,
            start_timeout: Duration::from_secs(60),
            recycled_memory: None,
            niceness: None,
            cores: Cores::Any,
            program: None,
        }
    }
}

impl Settings {
    /// Number of threads for each worker: the cores divided by the largest number of workers, and at
    /// least one.
    pub(crate) fn threads_per_worker(&self) -> usize {
        self.threads.unwrap_or_else(|| (cores() / self.workers.max.max(1)).max(1))
    }

    /// Checks what a pool cannot start with. The error is the reason.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.workers.check()?;
        match &self.cores {
            Cores::Any | Cores::Own => Ok(()),
            Cores::Listed(lists) => lists.iter().try_for_each(|cores| cpu_placement::check(cores)),
        }
    }

    /// Adopts the cores, the niceness and the recycled memory of other workers, unless this has its own.
    pub(crate) fn adopt(&mut self, others: &Self) {
        self.niceness = self.niceness.or(others.niceness);
        self.recycled_memory = self.recycled_memory.or(others.recycled_memory);
        if self.cores == Cores::Any {
            self.cores = others.cores.clone();
        }
    }

    /// Cores and niceness of a worker.
    pub(crate) fn placement(&self, index: usize) -> CpuPlacement {
        let cores = match &self.cores {
            Cores::Any => None,
            Cores::Own => own_cores(&allowed_cores(), index, self.threads_per_worker()),
            Cores::Listed(lists) => index.checked_rem(lists.len()).map(|index| lists[index].clone()),
        };
        CpuPlacement { cores, niceness: self.niceness }
    }
}

/// The cores of a worker that has `count` of those in `allowed`. Workers share cores if there are not
/// enough.
fn own_cores(allowed: &[usize], index: usize, count: usize) -> Option<Vec<usize>> {
    let first = index.saturating_mul(count);
    let own = (0..count.min(allowed.len())).map(|core| allowed[first.wrapping_add(core) % allowed.len()]);
    let own: Vec<_> = own.collect();
    (!own.is_empty()).then_some(own)
}

/// The cores that workers run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Those of this process.
    Any,
    /// As many for each worker as it has threads, a share of those of this process.
    Own,
    /// A list for each worker. A pool with more workers starts again with the first list.
    Listed(Vec<Vec<usize>>),
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

#[cfg(test)]
mod tests {
    use super::{Cores, Settings, own_cores};

    #[test]
    fn workers_get_their_share_of_the_cores() {
        let allowed = [2, 3, 8, 9];
        let own = |index, count| own_cores(&allowed, index, count).unwrap();
        assert_eq!((own(0, 2), own(1, 2), own(2, 2)), (vec![2, 3], vec![8, 9], vec![2, 3]));
        // More threads than cores.
        assert_eq!(own(1, 3), [9, 2, 3]);
        assert_eq!(own(5, 9).len(), 4);
        assert_eq!(own_cores(&[], 0, 2), None);
    }

    #[test]
    fn lists_of_cores_repeat() {
        let cores = Cores::Listed(vec![vec![0], vec![1, 2]]);
        let settings = Settings { cores, niceness: Some(3), ..Settings::default() };
        assert_eq!(settings.placement(3).cores, Some(vec![1, 2]));
        assert_eq!(settings.placement(0).niceness, Some(3));
        let none = Settings { cores: Cores::Listed(Vec::new()), ..Settings::default() };
        assert_eq!(none.placement(1).cores, None);
    }
}
