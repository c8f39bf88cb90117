//! Memory that a worker process takes, as measured of those that run.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::available_memory;
use crate::os::smaps::field;

/// Private memory of a worker that has not loaded a pipeline, and of one that was never measured.
/// `cargo xtask bench memory` prints the figure of a small pipeline.
const LEAST: u64 = 8 << 20;

/// The largest private memory of a worker so far.
#[derive(Debug, Default)]
pub(super) struct WorkerMemory(AtomicU64);

impl WorkerMemory {
    /// Checks that there is memory for a worker like those with the process ids `pids`, beside `expected`
    /// others that are about to start, and `reserve` bytes. The error is the reason why there is not.
    pub(super) fn check(&self, pids: &[u32], expected: usize, reserve: u64) -> Result<(), String> {
        let measured = pids.iter().map(|pid| private(*pid)).max().unwrap_or_default();
        let largest = self.0.fetch_max(measured, Ordering::Relaxed).max(measured).max(LEAST);
        available_memory::check(largest, expected as u64, reserve)
    }
}

/// Private memory of a process in bytes: heap, stacks and copies. Returns 0 if it has ended.
fn private(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "RssAnon:")
}

#[cfg(test)]
mod tests {
    use super::{LEAST, WorkerMemory, private};

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc")]
    fn largest_worker_is_remembered() {
        let memory = WorkerMemory::default();
        let own = std::process::id();
        assert!(private(own) > 0 && private(u32::MAX) == 0);
        assert_eq!(memory.check(&[own, u32::MAX], 0, 0), Ok(()));
        let kept = memory.0.load(std::sync::atomic::Ordering::Relaxed);
        assert!(kept > 0);
        let reason = memory.check(&[], usize::MAX, 0).unwrap_err();
        assert!(reason.starts_with("a worker needs about"), "{reason}");
        assert!(memory.check(&[], 0, u64::MAX - LEAST).is_err());
    }
}
