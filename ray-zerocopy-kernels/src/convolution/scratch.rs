//! Memory of convolutions that each thread keeps: new memory would have to be mapped page by page in each of them.

use std::cell::Cell;

/// Elements of memory that a thread keeps: 16 MiB.
const KEPT: usize = 4 << 20;
/// Elements of a vector are at multiples of this number of bytes.
const ALIGNED: usize = 64;

/// Panels and their sums.
#[derive(Default)]
pub(super) struct Panels {
    pub(super) panels: Vec<f32>,
    pub(super) sums: Vec<f32>,
}

/// Memory of one convolution on one thread, which takes it and gives it back.
pub(super) struct Scratch {
    pub(super) planes: Vec<f32>,
    pub(super) panels: Panels,
}

thread_local! {
    static OF_THREAD: Cell<Option<(Vec<f32>, Panels)>> = const { Cell::new(None) };
}

impl Scratch {
    /// Takes the memory of this thread. The planes are empty.
    pub(super) fn take() -> Self {
        let (mut planes, panels) = OF_THREAD.take().unwrap_or_default();
        planes.clear();
        Self { planes, panels }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (planes, panels) = (std::mem::take(&mut self.planes), std::mem::take(&mut self.panels));
        let count = planes.capacity() + panels.panels.capacity() + panels.sums.capacity();
        if count <= KEPT {
            OF_THREAD.set(Some((planes, panels)));
        }
    }
}

/// Elements of memory that is used again. The first one is where a cache line begins.
pub(super) fn aligned(memory: &mut Vec<f32>, count: usize) -> &mut [f32] {
    let spare = ALIGNED / size_of::<f32>();
    if memory.len() < count + spare {
        memory.resize(count + spare, 0.0);
    }
    let begin = memory.as_ptr().align_offset(ALIGNED).min(spare);
    &mut memory[begin..begin + count]
}

/// Several parts of memory that is used again. Each of them begins where a cache line does.
pub(super) fn divided<const COUNT: usize>(memory: &mut Vec<f32>, counts: [usize; COUNT]) -> [&mut [f32]; COUNT] {
    let line = |count: usize| count.next_multiple_of(ALIGNED / size_of::<f32>());
    let mut rest = aligned(memory, counts.iter().map(|count| line(*count)).sum());
    counts.map(|count| {
        let (part, others) = std::mem::take(&mut rest).split_at_mut(line(count));
        rest = others;
        &mut part[..count]
    })
}
