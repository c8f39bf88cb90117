//! Division of a product among the threads of rayon's current pool.

use std::ops::Range;

use rayon::prelude::*;

use super::packed::PANEL;
use super::sys::{Columns, MOST_ROWS};

/// Multiplications from which a product is divided among threads.
const PARALLEL: usize = 1 << 20;

/// Number of threads for a product of these dimensions.
pub(crate) fn threads(m: usize, k: usize, n: usize) -> usize {
    if m.saturating_mul(n).saturating_mul(k) < PARALLEL { 1 } else { rayon::current_num_threads() }
}

/// Computes a product of `m` rows, a depth of `k` and `n` columns. `compute` gets a part of the result, its first row,
/// and the panels that have its columns.
pub(crate) fn divide([m, k, n]: [usize; 3], y: &mut [f32], compute: impl Fn(Columns<'_>, usize, Range<usize>) + Sync) {
    let (threads, count) = (threads(m, k, n), n.div_ceil(PANEL));
    if threads == 1 {
        compute(Columns::new(y, n), 0, 0..count);
    } else if m >= threads * MOST_ROWS {
        // Whole rows, so that each thread reads its part of `x` once.
        let rows = m.div_ceil(threads).next_multiple_of(MOST_ROWS);
        y.par_chunks_mut(rows * n).enumerate().for_each(|(at, part)| {
            compute(Columns::new(part, n), at * rows, 0..count);
        });
    } else {
        // Few rows: each thread reads its part of the weight.
        let panels = count.div_ceil(threads);
        let parts = Columns::new(y, n).divide(panels * PANEL);
        parts.into_par_iter().enumerate().for_each(|(at, part)| {
            compute(part, 0, at * panels..((at + 1) * panels).min(count));
        });
    }
}

/// The number of rows of the next tile: as many as fit, but the last two are of equal size.
pub(crate) fn tile_rows(left: usize, most: usize) -> usize {
    match left {
        left if left >= 2 * most => most,
        left if left > most => left.div_ceil(2),
        left => left,
    }
}
