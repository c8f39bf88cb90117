//! Memory of results that is used again.
//!
//! The result of an operation is free after its last use. Its memory goes to a later result of about the same size, of
//! this run or of the next one: once all sizes are known, runs allocate only what leaves the graph.

/// Runs after which a buffer is freed that none of them has used.
const IDLE_RUNS: u64 = 16;

/// A buffer that is free.
struct Free {
    memory: Vec<f32>,
    /// The run that used it last.
    used: u64,
}

/// Free buffers, sorted by their capacity.
#[derive(Default)]
pub(super) struct Buffers {
    free: Vec<Free>,
    /// Addresses of buffers that this run has taken and not given back.
    taken: Vec<usize>,
    run: u64,
}

impl Buffers {
    /// Returns a buffer of this length. Its elements are any numbers.
    pub(super) fn take(&mut self, len: usize) -> Vec<f32> {
        let at = self.free.partition_point(|free| free.memory.capacity() < len);
        // A much larger one stays for a larger result.
        let fits = self.free.get(at).is_some_and(|free| free.memory.capacity() / 2 <= len);
        let mut memory = if fits { self.free.remove(at).memory } else { Vec::with_capacity(len) };
        memory.resize(len, 0.0);
        self.taken.push(memory.as_ptr().addr());
        memory
    }

    /// Takes back memory that is not used any more. Other memory is freed: what operations of burn have allocated would
    /// become more with each run.
    pub(super) fn give(&mut self, memory: Vec<f32>) {
        let address = memory.as_ptr().addr();
        if let Some(known) = self.taken.iter().position(|taken| *taken == address) {
            self.taken.swap_remove(known);
            let at = self.free.partition_point(|free| free.memory.capacity() < memory.capacity());
            self.free.insert(at, Free { memory, used: self.run });
        }
    }

    /// Ends a run: frees what the last ones have not used.
    pub(super) fn end_run(&mut self) {
        self.taken.clear();
        self.free.retain(|free| free.used + IDLE_RUNS > self.run);
        self.run += 1;
    }

    /// Bytes of all free buffers.
    pub(super) fn bytes(&self) -> u64 {
        self.free.iter().map(|free| (free.memory.capacity() * size_of::<f32>()) as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffers, IDLE_RUNS};

    #[test]
    fn a_buffer_goes_to_a_result_of_about_its_size() {
        let mut buffers = Buffers::default();
        let taken = [1000, 100, 10].map(|len| buffers.take(len));
        taken.into_iter().for_each(|memory| buffers.give(memory));
        let known = buffers.bytes();
        assert_eq!(known, 4 * 1110);
        assert_eq!(buffers.take(90).capacity(), 100);
        assert_eq!(buffers.take(90).capacity(), 90, "1000 is much more");
        assert_eq!(buffers.take(1001).capacity(), 1001);
        let filled = buffers.take(1000);
        assert_eq!((filled.len(), buffers.bytes()), (1000, 40));
    }

    #[test]
    fn buffers_that_are_not_used_are_freed() {
        let mut buffers = Buffers::default();
        let taken = [8, 64].map(|len| buffers.take(len));
        taken.into_iter().for_each(|memory| buffers.give(memory));
        for _ in 0..IDLE_RUNS + 1 {
            let used = buffers.take(64);
            buffers.give(used);
            buffers.end_run();
        }
        assert_eq!(buffers.bytes(), 4 * 64);
    }

    #[test]
    fn memory_of_others_is_not_kept() {
        let mut buffers = Buffers::default();
        for _ in 0..100 {
            let output = buffers.take(32);
            buffers.give(vec![0.0; 64]);
            buffers.end_run();
            // An output that comes back as an input of a later run.
            buffers.give(output);
        }
        assert_eq!(buffers.bytes(), 0);
    }
}
