//! Memory of workers: there is always enough.

#[derive(Debug, Default)]
pub(super) struct WorkerMemory;

impl WorkerMemory {
    pub(super) fn check(&self, _pids: &[u32], _expected: usize, _reserve: u64) -> Result<(), String> {
        Ok(())
    }
}
