//! A part of a matrix: some of its rows and columns. Parts that do not overlap are written at the same time.

use std::marker::PhantomData;
use std::ops::Range;

use super::row_functions;
use super::tile::{Elements, MOST_ROWS};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::packed::PANEL;

/// Elements of a line of the cache.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 16;

/// Requests the lines of the cache of some rows with `width` elements, which are at a distance of `stride`. They come
/// into the second level: more can be on their way to it than to the first one.
#[inline]
pub(crate) fn request_rows(rows: &[f32], stride: usize, count: usize, width: usize) {
    #[cfg(target_arch = "x86_64")]
    for row in 0..count {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        for column in (0..width).step_by(LINE) {
            let pointer = rows.as_ptr().wrapping_add(row * stride + column);
            // SAFETY: an address that cannot be read is ignored.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(pointer.cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (rows, stride, count, width);
}

/// Some rows and columns of a matrix that is stored row by row.
pub(crate) struct Columns<'a> {
    pointer: *mut f32,
    /// Distance between rows, in elements.
    stride: usize,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: a part has its elements for itself, as `&mut [f32]` has.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All rows and columns of a matrix.
    pub(crate) fn new(matrix: &'a mut [f32], columns: usize) -> Self {
        let rows = matrix.len().checked_div(columns).unwrap_or(0);
        Self { pointer: matrix.as_mut_ptr(), stride: columns, rows, columns, matrix: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Divides it into parts of `width` columns. The last one has what is left.
    pub(crate) fn divide(self, width: usize) -> Vec<Self> {
        let part = |begin: usize| Self {
            // Not `add`: a part without rows may begin behind the matrix, and then nothing is accessed.
            pointer: self.pointer.wrapping_add(begin),
            columns: width.min(self.columns - begin),
            ..self.again()
        };
        // The parts have different columns, and `self`, which has all of them, ends here.
        (0..self.columns).step_by(width.max(1)).map(part).collect()
    }

    /// Divides it in two at a column.
    pub(crate) fn split_at(self, column: usize) -> (Self, Self) {
        assert!(column <= self.columns, "the column is outside of the matrix");
        let rest = Self {
            // Not `add`: an empty part may begin behind the matrix.
            pointer: self.pointer.wrapping_add(column),
            columns: self.columns - column,
            ..self.again()
        };
        // The parts have different columns, and `self`, which has all of them, ends here.
        (Self { columns: column, ..self }, rest)
    }

    /// Some rows and columns of it, for as long as this is borrowed.
    pub(crate) fn part(&mut self, row: usize, column: usize, rows: usize, columns: usize) -> Columns<'_> {
        assert!(row + rows <= self.rows && column + columns <= self.columns, "the part is outside of the matrix");
        // Not `add`: an empty part may begin behind the matrix.
        let pointer = self.pointer.wrapping_add(row * self.stride + column);
        Columns { pointer, rows, columns, ..self.again() }
    }

    fn again(&self) -> Self {
        Self { matrix: PhantomData, ..*self }
    }

    /// The elements of a row.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "the row is outside of the matrix");
        // SAFETY: the row is one of this part.
        let first = unsafe { self.pointer.add(row * self.stride) };
        // SAFETY: the elements are those of this part, which no other reference can access: parts are made of a
        // `&mut [f32]`, by division into parts without common elements, or while the larger part is borrowed.
        unsafe { std::slice::from_raw_parts_mut(first, self.columns) }
    }

    /// Requests the lines of the cache that will be written, and those of the residual, so that they come while a tile is
    /// computed. The first element is at `row` and `column` of a result with `n` columns.
    #[inline]
    pub(crate) fn request(&self, epilogue: &Epilogue<'_>, [row, column, n]: [usize; 3]) {
        #[cfg(target_arch = "x86_64")]
        for at in 0..self.rows {
            use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
            let first = self.pointer.wrapping_add(at * self.stride);
            // Elements are not at the begin of a line: those of a panel are in three of them.
            for part in [0, PANEL / 2, self.columns.saturating_sub(1)] {
                // SAFETY: an address that cannot be written is ignored.
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(first.wrapping_add(part).cast()) };
                if let Some(residual) = epilogue.residual {
                    let read = residual.as_ptr().wrapping_add((row + at) * n + column + part);
                    // SAFETY: an address that cannot be read is ignored.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(read.cast()) };
                }
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (epilogue, row, column, n);
    }

    /// Requests the lines of the cache that will be written in some rows and columns.
    #[inline]
    pub(crate) fn request_part(&self, rows: Range<usize>, columns: Range<usize>) {
        #[cfg(target_arch = "x86_64")]
        for row in rows {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            for column in columns.clone().step_by(LINE) {
                let pointer = self.pointer.wrapping_add(row * self.stride + column);
                // SAFETY: an address that cannot be written is ignored.
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(pointer.cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (rows, columns);
    }

    /// The first element, and the distance between rows, for a kernel that writes the elements of all rows.
    pub(super) fn raw(&mut self) -> (*mut f32, usize) {
        (self.pointer, self.stride)
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Writes a tile with an epilogue. The place is the row and the column of its first element, and the number of
    /// columns of the result.
    pub(crate) fn write(&mut self, isa: Isa, epilogue: &Epilogue<'_>, tile: &mut Elements, place: [usize; 3]) {
        assert!(self.rows <= MOST_ROWS && self.columns <= PANEL, "the tile has another size");
        row_functions::finish(isa, epilogue, tile, self, place);
    }
}
