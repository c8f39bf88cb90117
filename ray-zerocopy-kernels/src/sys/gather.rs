//! Copies runs of pixels to the rows of a matrix, compiled for each instruction set.

use super::row_functions::for_each_isa;
use super::strip::HALF;
use crate::isa::Isa;

/// Pixels that follow each other where they are read and where they are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// The first position where they are read.
    pub(crate) place: usize,
    /// The first column that is written.
    pub(crate) at: usize,
    /// Number of pixels.
    pub(crate) count: usize,
}

for_each_isa!(
    /// Writes a row for each offset, at a distance of `width`: the elements of `x` at this offset from the places of
    /// the runs. Up to a vector behind a run is overwritten too, unless a run or a row follows there.
    gather = plain_gather(x: &[f32], offsets: &[usize], runs: &[Run], y: &mut [f32], width: usize)
);

#[inline(always)]
fn plain_gather(x: &[f32], offsets: &[usize], runs: &[Run], y: &mut [f32], width: usize) {
    for (row, offset) in offsets.iter().enumerate() {
        let y = &mut y[row * width..];
        for Run { place, at, count } in runs {
            let (source, target) = (&x[offset + place..], &mut y[*at..]);
            let whole = count.next_multiple_of(HALF);
            if whole <= source.len().min(target.len()) {
                let vectors = source[..whole].as_chunks::<HALF>().0;
                for (to, from) in target[..whole].as_chunks_mut::<HALF>().0.iter_mut().zip(vectors) {
                    *to = *from;
                }
            } else {
                target[..*count].copy_from_slice(&source[..*count]);
            }
        }
    }
}
