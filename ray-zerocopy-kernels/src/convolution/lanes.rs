//! Division of columns among vectors: 32 at a time, then 16, and the last few one by one.

use std::ops::Range;

use crate::isa::Isa;
use crate::packed::PANEL;
use crate::sys::{Columns, HALF, MOST_ROWS, Strip, dot_rows};

/// The most columns behind the last whole vector that are computed one by one. 14 × 14 pixels are 4 more than whole
/// vectors have, 7 × 7 are one more.
const SINGLE: usize = 4;

/// The columns of a matrix that is stored row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lanes {
    /// Number of columns.
    pub(super) count: usize,
    /// Columns that are computed by vectors. More than there are, if the last vector is not full.
    wide: usize,
    /// Distance between rows.
    pub(super) width: usize,
}

impl Lanes {
    pub(super) fn new(count: usize) -> Self {
        let rest = count % HALF;
        let wide = if rest <= SINGLE { count - rest } else { count.next_multiple_of(HALF) };
        // An odd number of cache lines, so that rows are in all parts of the cache.
        let width = (count.div_ceil(HALF) | 1) * HALF;
        Self { count, wide, width }
    }

    /// Elements of a matrix with a number of rows. What follows the columns of a row may be overwritten, also behind
    /// the last one.
    pub(super) fn matrix(&self, rows: usize) -> usize {
        rows * self.width + HALF
    }

    /// Number of columns that are computed one by one.
    pub(super) fn singles(&self) -> usize {
        self.count.saturating_sub(self.wide)
    }

    /// Copies a column that is computed by itself.
    pub(super) fn copy_single(&self, single: usize, matrix: &[f32], column: &mut [f32]) {
        let elements = matrix.iter().skip(self.wide + single).step_by(self.width);
        column.iter_mut().zip(elements).for_each(|(to, from)| *to = *from);
    }

    /// Multiplies rows with the columns. The strip has the matrix; `singles` has the columns that are computed one by
    /// one, one after the other. Calls `before` with columns that will be computed.
    pub(super) fn multiply(
        &self,
        isa: Isa,
        strip: &Strip<'_>,
        singles: &[f32],
        y: &mut Columns<'_>,
        before: impl Fn(Range<usize>),
    ) {
        let (rows, mut column) = (y.rows(), 0);
        while column < self.wide {
            let columns = if self.wide - column >= PANEL { PANEL } else { HALF };
            let strip = Strip { matrix: &strip.matrix[column..], ..*strip };
            before(column..(column + columns).min(self.count));
            strip.multiply(isa, &mut y.part(0, column, rows, columns));
            column += columns;
        }
        if self.singles() == 0 {
            return;
        }
        let singles = &singles[..self.singles() * strip.depth];
        let mut sums = [0.0; MOST_ROWS * SINGLE];
        let sums = &mut sums[..rows * self.singles()];
        if strip.depth > 0 {
            dot_rows(isa, strip.x, strip.stride, singles, strip.depth, sums);
        }
        for (row, sums) in sums.chunks_exact(self.singles()).enumerate() {
            for (y, sum) in y.row(row)[self.wide..].iter_mut().zip(sums) {
                *y = if strip.adds { *y + sum } else { *sum };
            }
        }
    }
}
